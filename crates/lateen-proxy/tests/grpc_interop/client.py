"""The cases of gRPC's interoperability tests (doc/interop-test-descriptions.md of gRPC). Takes the server's address, and
prints `ok CASE` or `failed CASE: why` for each."""

import sys
import threading

import grpc

import messages as m

PATIENCE_SECONDS = 20
REQUESTS = [27182, 8, 1828, 45904]
ANSWERS = [31415, 9, 2653, 58979]


def payload(size):
    return m.Payload(body=b"\0" * size)


def caller(channel, method, service=m.SERVICE):
    known = method if method in m.METHODS else "EmptyCall"
    write, _, _, read = m.coders(known)
    _, _, sends, receives = m.METHODS[known]
    kind = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary"}
    make = getattr(channel, kind.get((sends, receives), "stream_stream"))
    call = make(f"/{service}/{method}", request_serializer=write, response_deserializer=read)
    return lambda request, timeout=PATIENCE_SECONDS, **rest: call(request, timeout=timeout, **rest)


def expect(seen, wanted):
    if seen != wanted:
        raise AssertionError(f"{seen!r} instead of {wanted!r}")


def expect_failure(code, call, details=None):
    try:
        call()
    except grpc.RpcError as error:
        expect(error.code(), code)
        if details is not None:
            expect(error.details(), details)
        return
    raise AssertionError(f"no failure, {code} was expected")


class Requests:
    """A stream of requests that is filled while the call goes on."""

    def __init__(self):
        self.ready = threading.Condition()
        self.waiting = []
        self.ended = False

    def send(self, request):
        with self.ready:
            self.waiting.append(request)
            self.ready.notify()

    def end(self):
        with self.ready:
            self.ended = True
            self.ready.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self.ready:
            self.ready.wait_for(lambda: self.waiting or self.ended)
            if self.waiting:
                return self.waiting.pop(0)
            raise StopIteration


def output_request(size, request_size):
    return m.StreamingOutputCallRequest(
        response_parameters=[m.ResponseParameters(size=size)], payload=payload(request_size)
    )


def empty_unary(channel):
    expect(caller(channel, "EmptyCall")(m.Empty()), m.Empty())


def large_unary(channel):
    answer = caller(channel, "UnaryCall")(m.SimpleRequest(response_size=314159, payload=payload(271828)))
    expect(len(answer.payload.body), 314159)


def client_streaming(channel):
    requests = (m.StreamingInputCallRequest(payload=payload(size)) for size in REQUESTS)
    expect(caller(channel, "StreamingInputCall")(requests).aggregated_payload_size, 74922)


def server_streaming(channel):
    request = m.StreamingOutputCallRequest(response_parameters=[m.ResponseParameters(size=size) for size in ANSWERS])
    answers = caller(channel, "StreamingOutputCall")(request)
    expect([len(answer.payload.body) for answer in answers], ANSWERS)


def ping_pong(channel):
    requests = Requests()
    answers = caller(channel, "FullDuplexCall")(requests)
    for size, answer in zip(REQUESTS, ANSWERS):
        requests.send(output_request(answer, size))
        expect(len(next(answers).payload.body), answer)
    requests.end()
    expect(list(answers), [])


def empty_stream(channel):
    expect(list(caller(channel, "FullDuplexCall")(iter(()))), [])


def timeout_on_sleeping_server(channel):
    requests = Requests()
    requests.send(m.StreamingOutputCallRequest(payload=payload(27182)))
    try:
        call = caller(channel, "FullDuplexCall")
        expect_failure(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: list(call(requests, timeout=0.001)))
    finally:
        requests.end()


def status_code_and_message(channel, message="test status message"):
    status = m.EchoStatus(code=2, message=message)
    unary = caller(channel, "UnaryCall")
    expect_failure(grpc.StatusCode.UNKNOWN, lambda: unary(m.SimpleRequest(response_status=status)), message)
    duplex = caller(channel, "FullDuplexCall")
    requests = [m.StreamingOutputCallRequest(response_status=status)]
    expect_failure(grpc.StatusCode.UNKNOWN, lambda: list(duplex(iter(requests))), message)


def special_status_message(channel):
    message = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
    status = m.EchoStatus(code=2, message=message)
    unary = caller(channel, "UnaryCall")
    expect_failure(grpc.StatusCode.UNKNOWN, lambda: unary(m.SimpleRequest(response_status=status)), message)


def custom_metadata(channel):
    initial = ("x-grpc-test-echo-initial", "test_initial_metadata_value")
    trailing = ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab")
    for method, request in (
        ("UnaryCall", m.SimpleRequest(response_size=314159, payload=payload(271828))),
        ("FullDuplexCall", iter([output_request(314159, 271828)])),
    ):
        call = caller(channel, method)
        if method == "UnaryCall":
            write, _, _, read = m.coders(method)
            path = f"/{m.SERVICE}/{method}"
            unary = channel.unary_unary(path, request_serializer=write, response_deserializer=read)
            _, done = unary.with_call(request, timeout=PATIENCE_SECONDS, metadata=[initial, trailing])
        else:
            done = call(request, metadata=[initial, trailing])
            expect(len(list(done)), 1)
        expect(dict(done.initial_metadata()).get(initial[0]), initial[1])
        expect(dict(done.trailing_metadata()).get(trailing[0]), trailing[1])


def unimplemented_method(channel):
    call = caller(channel, "UnimplementedCall")
    expect_failure(grpc.StatusCode.UNIMPLEMENTED, lambda: call(m.Empty()))


def unimplemented_service(channel):
    call = caller(channel, "UnimplementedCall", "grpc.testing.UnimplementedService")
    expect_failure(grpc.StatusCode.UNIMPLEMENTED, lambda: call(m.Empty()))


def cancel_after_begin(channel):
    requests = Requests()
    write, _, _, read = m.coders("StreamingInputCall")
    path = f"/{m.SERVICE}/StreamingInputCall"
    call = channel.stream_unary(path, request_serializer=write, response_deserializer=read)
    future = call.future(requests, timeout=PATIENCE_SECONDS)
    future.cancel()
    requests.end()
    expect(future.code(), grpc.StatusCode.CANCELLED)


def cancel_after_first_response(channel):
    requests = Requests()
    answers = caller(channel, "FullDuplexCall")(requests)
    requests.send(output_request(31415, 27182))
    expect(len(next(answers).payload.body), 31415)
    answers.cancel()
    requests.end()
    expect_failure(grpc.StatusCode.CANCELLED, lambda: next(answers))


CASES = [
    empty_unary,
    large_unary,
    client_streaming,
    server_streaming,
    ping_pong,
    empty_stream,
    timeout_on_sleeping_server,
    status_code_and_message,
    special_status_message,
    custom_metadata,
    unimplemented_method,
    unimplemented_service,
    cancel_after_begin,
    cancel_after_first_response,
]


def main():
    options = [("grpc.max_receive_message_length", 1 << 22), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(sys.argv[1], options=options) as channel:
        for case in CASES:
            try:
                case(channel)
                print(f"ok {case.__name__}", flush=True)
            except Exception as error:
                print(f"failed {case.__name__}: {error}", flush=True)


main()
