"""An HTTP/1.1 server that knows no route: parser, connection and the one base class of handlers.

* :class:`~autopush.httpserver.parser.RequestParser` makes requests of bytes, without any input or
  output: limits and framing, nothing else.
* :class:`~autopush.httpserver.connection.HTTPConnection` has a socket and its time-outs. Requests
  may come faster than they are answered; answers go out in order. It hands the connection over
  where a request asks for a WebSocket.
* :class:`~autopush.httpserver.application.RoutedServer` finds the handler of a path in a table.
* :class:`~autopush.httpserver.handler.BaseHandler` is cyclone's ``RequestHandler``, so that
  handlers written for 1.58.3 still are handlers.

Why not cyclone's own parser: decisions/http-parser and decisions/cyclone.
"""
