"""gRPC's own server: answers every call.

Usage: server.py HOST:PORT
"""

import concurrent.futures
import sys

import grpc


class Anything(grpc.GenericRpcHandler):
    def service(self, _):
        return grpc.unary_unary_rpc_method_handler(lambda message, context: b"hello\n")


server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[Anything()])
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
