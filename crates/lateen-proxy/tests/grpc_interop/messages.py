"""The messages of gRPC's interoperability tests (package grpc.testing), as far as the cases here need them."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "int32": FIELD.TYPE_INT32,
    "string": FIELD.TYPE_STRING,
    "bytes": FIELD.TYPE_BYTES,
    "bool": FIELD.TYPE_BOOL,
}

# Each message: name, type, number. What stands for an enumeration is a number here.
MESSAGES = {
    "Empty": [],
    "Payload": [("type", "int32", 1), ("body", "bytes", 2)],
    "EchoStatus": [("code", "int32", 1), ("message", "string", 2)],
    "SimpleRequest": [
        ("response_type", "int32", 1),
        ("response_size", "int32", 2),
        ("payload", "Payload", 3),
        ("response_status", "EchoStatus", 7),
    ],
    "SimpleResponse": [("payload", "Payload", 1)],
    "StreamingInputCallRequest": [("payload", "Payload", 1)],
    "StreamingInputCallResponse": [("aggregated_payload_size", "int32", 1)],
    "ResponseParameters": [("size", "int32", 1), ("interval_us", "int32", 2)],
    "StreamingOutputCallRequest": [
        ("response_type", "int32", 1),
        ("response_parameters", "*ResponseParameters", 2),
        ("payload", "Payload", 3),
        ("response_status", "EchoStatus", 7),
    ],
    "StreamingOutputCallResponse": [("payload", "Payload", 1)],
}

# Each method: request and answer, and whether either is a stream.
METHODS = {
    "EmptyCall": ("Empty", "Empty", False, False),
    "UnaryCall": ("SimpleRequest", "SimpleResponse", False, False),
    "StreamingOutputCall": ("StreamingOutputCallRequest", "StreamingOutputCallResponse", False, True),
    "StreamingInputCall": ("StreamingInputCallRequest", "StreamingInputCallResponse", True, False),
    "FullDuplexCall": ("StreamingOutputCallRequest", "StreamingOutputCallResponse", True, True),
}

SERVICE = "grpc.testing.TestService"


def _build():
    file = descriptor_pb2.FileDescriptorProto(name="interop.proto", package="grpc.testing", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, kind, number in fields:
            repeated = kind.startswith("*")
            label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            kind = kind.lstrip("*")
            if kind in SCALARS:
                message.field.add(name=field, number=number, label=label, type=SCALARS[kind])
            else:
                message.field.add(
                    name=field, number=number, label=label, type=FIELD.TYPE_MESSAGE, type_name=f".grpc.testing.{kind}"
                )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.testing.{name}")) for name in MESSAGES
    }


globals().update(_build())


def coders(method):
    """What writes a method's requests, reads them, writes its answers and reads them."""
    request, answer, _, _ = METHODS[method]
    of = globals()
    write = lambda message: message.SerializeToString()
    return write, of[request].FromString, write, of[answer].FromString
