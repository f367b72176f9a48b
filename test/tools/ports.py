"""Ports that are a test's own, also while nothing listens on them."""
import socket

held = []  # for as long as this process runs


def own_port():
    """On which a server may listen, end and listen again, while other tests start servers and clients beside it.

    A socket that is bound and never listens keeps the kernel from giving the port to anybody who asks for just any; a
    server that asks for this one, and sets SO_REUSEADDR, gets it all the same. Until then connections are refused.
    """
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    held.append(s)
    return s.getsockname()[1]
