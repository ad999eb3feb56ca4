"""Ways out of the process, and what lies under its sockets.

* :mod:`autopush.net.nodeclient`: to other nodes, for each message that isn't delivered in this
  process. Small requests over connections that are kept; only a status comes back.
* :mod:`autopush.net.http2pool` and :mod:`autopush.net.http2`: to Apple, many requests at a time
  on few connections.
* :mod:`autopush.net.eager`, :mod:`autopush.net.proxyprotocol` and :mod:`autopush.net.ignorebody`:
  what Twisted's transports and listeners lack here.

Each has a bound on what may wait, and a time after which it is given up. Nothing that was
received chooses where these connect to.
"""
