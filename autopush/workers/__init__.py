"""A service of several processes: ``autopush_standalone --workers N``.

::

    supervisor (autopush.workers.supervisor)      lock of the data directory, listening sockets,
        │ spawns, and starts again                 signals, service manager, /metrics of the whole
        │ channel: lines of JSON                   (autopush.workers.channel)
        ├──────── worker 1 (autopush.workers.application)
        ├──────── worker 2      a node of its own: sessions, API, store
        └──────── worker N
                     │  ▲
                     └──┘ the internal API, over a Unix socket each (autopush.workers.link)

The supervisor serves nobody and knows no user. A worker is the standalone application, whose ports
are sockets it is given (:mod:`autopush.workers.sockets`), and whose node has a Unix socket for the
others. When and after how long a worker that has ended is started again is for
:mod:`autopush.workers.fleet` to say, and how the figures of all become those of the service for
:mod:`autopush.metrics.merged`.
"""
