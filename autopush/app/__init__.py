"""A running process: its service, its data directory, its start, its signals and its end.

The applications (:mod:`autopush.main`) say which listeners and handlers they have. What a process
is besides is here::

    options ──▶ AutopushConfig ──▶ AutopushMultiService   an application: store, routers, nodes
                                       │
                                    setup()               its listeners and timers are made
                                       │
                                     start()              the store opens, then ports are bound
                                       │ SIGTERM, SIGINT
                                  stopService()           no port any more; drain(): sessions
                                       │                  save what they owe; the store closes
                                       ▼ done, or STOP_WITHIN is over
                                  exit status 0

A start that fails says why in one line (:mod:`~autopush.app.starterrors`). Signals and service
managers are in :mod:`~autopush.app.lifecycle` and :mod:`~autopush.app.systemd`, keys and the data
directory of the standalone service in :mod:`~autopush.app.standalone`.
"""
