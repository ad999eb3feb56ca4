"""An HTTP/1.1 server that knows no route: parser, connection and the one base class of handlers."""
