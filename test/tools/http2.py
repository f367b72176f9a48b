"""A client that speaks HTTP/2, by the names of client.Client; and its frames, for what no client sends."""
import socket
import ssl

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from client import Client, Response, tls_context


class Http2(Client):
    """One connection. request() is one stream; open_stream() and next_event() are for tests that look closer."""

    def __init__(self, address, identity, ca=None, timeout=120, source=None):
        context = tls_context(identity, ca)
        context.set_alpn_protocols(["h2"])
        self.authority = f"{address[0]}:{address[1]}"
        raw = socket.create_connection(address, timeout, source and (source, 0))
        self.socket = context.wrap_socket(raw, server_hostname=address[0])
        assert self.socket.selected_alpn_protocol() == "h2"
        # Outbound checks off: tests send what they like.
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False,
                                           normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.events = []
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def next_event(self):
        """None: the peer has closed."""
        while not self.events:
            try:
                data = self.socket.recv(65536)
            except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
                data = b""
            if not data:
                return None
            self.events = self.h2.receive_data(data)
            for event in self.events:
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            try:
                self.flush()
            except OSError:
                pass  # it has closed; what it said before counts
        return self.events.pop(0)

    def open_stream(self, method, path, headers=(), end=True):
        """Sends a request's head; its stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "https"), (":authority", self.authority)]
        pairs = headers.items() if isinstance(headers, dict) else headers
        self.h2.send_headers(stream, head + [(k.lower(), v) for k, v in pairs], end_stream=end)
        self.flush()
        return stream

    def _send_some(self, stream, body, sent):
        room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body) - sent)
        if room:
            self.h2.send_data(stream, body[sent:sent + room], end_stream=sent + room == len(body))
            self.flush()
        return sent + room

    def answer(self, stream, body=b""):
        """Sends the body as far as it is wanted, and reads the stream's answer."""
        sent, response = 0, Response(0, {})
        while True:
            before = sent
            if sent < len(body):
                sent = self._send_some(stream, body, sent)
                if sent > before:
                    continue
            event = self.next_event()
            if event is None:
                raise ConnectionResetError("closed before the answer was complete")
            if getattr(event, "stream_id", stream) != stream:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                fields = dict(event.headers)
                response = Response(int(fields.pop(":status")), fields)
            elif isinstance(event, h2.events.DataReceived):
                response.body += event.data
            elif isinstance(event, h2.events.StreamEnded):
                return response
            elif isinstance(event, h2.events.StreamReset):
                raise ConnectionResetError(f"stream reset: {event.error_code}")

    def request(self, method, path, body=None, headers=None):
        body = body.encode() if isinstance(body, str) else body or b""
        fields = {k.lower(): v for k, v in (headers or {}).items()}
        if body:
            fields.setdefault("content-length", str(len(body)))
        return self.answer(self.open_stream(method, path, fields, end=not body), body)

    def post_at_once(self, count, body):
        """count messages as streams of one write; their answers in the order in which they end."""
        for _ in range(count):
            stream = self.h2.get_next_available_stream_id()
            self.h2.send_headers(stream, [(":method", "POST"), (":path", "/api/v1/messages"), (":scheme", "https"),
                                          (":authority", self.authority), ("content-type", "application/json")])
            self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        by_stream, ended = {}, []
        while len(ended) < count:
            event = self.next_event()
            if event is None:
                raise ConnectionResetError("closed before the answers were complete")
            if isinstance(event, h2.events.ResponseReceived):
                fields = dict(event.headers)
                by_stream[event.stream_id] = Response(int(fields.pop(":status")), fields)
            elif isinstance(event, h2.events.DataReceived):
                by_stream[event.stream_id].body += event.data
            elif isinstance(event, h2.events.StreamEnded):
                ended.append(by_stream[event.stream_id])
        return ended

    def wait_closed(self):
        """All events until the peer closes; a timeout is an error."""
        events = []
        while (event := self.next_event()) is not None:
            events.append(event)
        return events

    def close(self):
        self.socket.close()
