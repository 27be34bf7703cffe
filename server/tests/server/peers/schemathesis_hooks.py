"""What schemathesis has to know of bodies in protobuf: bytes are sent as they are."""

import schemathesis


@schemathesis.serializer("application/x-protobuf", "application/offset+octet-stream")
def protobuf(_context, value):
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return str(value).encode()
