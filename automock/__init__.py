"""Stand-ins for the services autopush talks to, as real servers on loopback.

``python -m automock`` starts them all and prints the options that point the daemons at them;
``python -m automock apns`` starts one. Each behaves as its vendor documents it, and answers as a
script says where there is one (:mod:`automock.control`). Nothing here imports autopush.
"""

STAND_INS = {
    "apns": "automock.apns:APNs",
    "gcm": "automock.gcm:GCM",
    "fcm_legacy": "automock.fcm:LegacyFCM",
    "fcm": "automock.fcm:FCM",
    "adm": "automock.adm:ADM",
    "proxy": "automock.proxy:Proxy",
    "megaphone": "automock.megaphone:Megaphone",
    "sentry": "automock.sentry:Sentry",
    "statsd": "automock.statsd:Statsd",
}
"""Classes by name; they derive from :class:`automock.standin.StandIn`."""
