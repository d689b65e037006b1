"""The server of gRPC's interoperability tests. Prints its port once it listens."""

import time
from concurrent import futures

import grpc

import messages as m

INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"


def echo_metadata(context):
    sent = dict(context.invocation_metadata())
    if INITIAL in sent:
        context.send_initial_metadata([(INITIAL, sent[INITIAL])])
    if TRAILING in sent:
        context.set_trailing_metadata([(TRAILING, sent[TRAILING])])


def echo_status(request, context):
    """Ends the call as the client wishes; true if it does."""
    if request.response_status.code:
        context.set_code(next(c for c in grpc.StatusCode if c.value[0] == request.response_status.code))
        context.set_details(request.response_status.message)
        return True
    return False


def payload(size):
    return m.Payload(body=b"\0" * size)


def empty_call(request, context):
    echo_metadata(context)
    return m.Empty()


def unary_call(request, context):
    echo_metadata(context)
    if echo_status(request, context):
        return m.SimpleResponse()
    return m.SimpleResponse(payload=payload(request.response_size))


def output(request):
    for parameters in request.response_parameters:
        time.sleep(parameters.interval_us / 1e6)
        yield m.StreamingOutputCallResponse(payload=payload(parameters.size))


def streaming_output_call(request, context):
    echo_metadata(context)
    if not echo_status(request, context):
        yield from output(request)


def streaming_input_call(requests, context):
    echo_metadata(context)
    return m.StreamingInputCallResponse(aggregated_payload_size=sum(len(r.payload.body) for r in requests))


def full_duplex_call(requests, context):
    echo_metadata(context)
    for request in requests:
        if echo_status(request, context):
            return
        yield from output(request)


HANDLERS = {
    "EmptyCall": (grpc.unary_unary_rpc_method_handler, empty_call),
    "UnaryCall": (grpc.unary_unary_rpc_method_handler, unary_call),
    "StreamingOutputCall": (grpc.unary_stream_rpc_method_handler, streaming_output_call),
    "StreamingInputCall": (grpc.stream_unary_rpc_method_handler, streaming_input_call),
    "FullDuplexCall": (grpc.stream_stream_rpc_method_handler, full_duplex_call),
}


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {}
    for method, (make, function) in HANDLERS.items():
        _, read, write, _ = m.coders(method)
        handlers[method] = make(function, request_deserializer=read, response_serializer=write)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(m.SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


main()
