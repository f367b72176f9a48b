"""A relay for TCP that breaks off over requests that are too long, as a server does that dies of them."""
import select
import socket
import threading


class Relay:
    """Between whoever connects to .port and `target`. What comes from there is passed on while no more than `most` bytes
    of it came in a row; of more nothing arrives, and both ends are closed. Answers pass as they are."""

    def __init__(self, target, most):
        self.target, self.most = target, most
        self.broken_off = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        try:
            with near, socket.create_connection(self.target) as far:
                self._pass_on(near, far)
        except OSError:
            pass  # either end is gone

    def _pass_on(self, near, far):
        came = 0
        while True:
            for end in select.select([near, far], [], [])[0]:
                data = end.recv(65536)
                if not data:
                    return
                came = came + len(data) if end is near else 0
                if came > self.most:
                    self._swallow(near)
                    return
                (far if end is near else near).sendall(data)

    def _swallow(self, near):
        """The rest of the request, so that all of it was sent before the end."""
        near.settimeout(0.1)
        try:
            while near.recv(65536):
                pass
        except TimeoutError:
            self.broken_off += 1

    def close(self):
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
