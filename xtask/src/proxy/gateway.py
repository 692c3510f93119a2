"""A gRPC client in the place of a proxy: makes a call of each HTTP request, and logs those that fail in gRPC's own words.

Usage: gateway.py HOST PORT ROUTES, with the routes as JSON: {NAME: {"server": "HOST:PORT", "tls": false, "keeps": false}}.
A path's first part is the name. Calls give up after two seconds, connections after less than one.
"""

import http.server
import json
import logging
import queue
import select
import socket
import sys
import threading
import time

import grpc

OPTIONS = [
    # Each channel has connections of its own.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 700),
    ("grpc.min_reconnect_backoff_ms", 700),
    ("grpc.enable_retries", 0),
    # No pings: to a connection that is closed they would be as good as a request.
    ("grpc.http2.bdp_probe", 0),
]
DEADLINE = 2
# A connection that was not made in time is tried a second time at once, although nobody asks for it any more.
SECOND_TIME = 2
# Longer than a connection takes that is made.
CONNECTING = 0.5
# How soon a client is missed.
PATIENCE = 0.05
# Longer than the kernel's clock needs to tell what was received from what was sent then.
MOMENT = 0.02
CREDENTIALS = grpc.ssl_channel_credentials()
SETTLED = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE)

routes = json.loads(sys.argv[3])
# Those that wait for the next call.
idle = {name: [] for name in routes}


def connected(route):
    """A channel that has tried to connect."""
    if route["tls"]:
        channel = grpc.secure_channel(route["server"], CREDENTIALS, OPTIONS)
    else:
        channel = grpc.insecure_channel(route["server"], OPTIONS)
    states = queue.SimpleQueue()
    channel.subscribe(states.put, try_to_connect=True)
    try:
        while (state := states.get(timeout=CONNECTING)) not in SETTLED:
            pass
        if state is grpc.ChannelConnectivity.READY:
            time.sleep(MOMENT)
    except queue.Empty:
        pass  # It was ready for less than a moment.
    channel.unsubscribe(states.put)
    return channel


def call(path, is_gone):
    """The answer to a call of the method `path`, whose message is the path as well."""
    name = path.split("/")[1]
    route = routes[name]
    began = time.monotonic()
    channel = idle[name].pop() if idle[name] else connected(route)
    answered = False
    try:
        future = channel.unary_unary(path).future(path.encode(), timeout=DEADLINE)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        while not done.wait(PATIENCE):
            if is_gone():
                future.cancel()
        answered = future.code() is grpc.StatusCode.OK
        if not answered:
            logging.error("ipv4:%s %s %s: %s", route["server"], path, future.code(), future.details())
        return future.result() if answered else None
    finally:
        if answered and route["keeps"]:
            idle[name].append(channel)
        else:
            channel.close()
            if future.code() is grpc.StatusCode.UNAVAILABLE and time.monotonic() - began > CONNECTING:
                time.sleep(SECOND_TIME)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def is_gone(self):
        """Whether the client has closed its connection."""
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def do_GET(self):
        answer = call(self.path, self.is_gone)
        body = answer or b""
        self.send_response(503 if answer is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_):
        """A client may go away."""


# Whoever learns that a call failed logs it at once, however many others work.
sys.setswitchinterval(0.0002)
logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
