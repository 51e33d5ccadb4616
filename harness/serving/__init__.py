"""What is spoken on the wire: the Open Inference Protocol v2, and the ASGI app that answers it."""
