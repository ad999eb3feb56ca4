"""The pictures of the manual, as data for :mod:`autopush_drawing`."""

from __future__ import annotations

from autopush_drawing import Arrow, Box, Picture, Text

PROCESSES = Picture(
    "processes",
    "The processes of an autopush service, and what they say to each other",
    360,
    424,
    boxes=(
        Box("user agents", 6, 6, 140, 42, ("browsers",)),
        Box("application servers", 206, 6, 148, 42, ("of websites",)),
        Box("connection nodes", 14, 120, 128, 74, ("autopush", "keep WebSockets"), ours=True),
        Box("endpoint nodes", 218, 120, 128, 74, ("autoendpoint", "take messages"), ours=True),
        Box(
            "storage",
            6,
            286,
            232,
            62,
            ("DynamoDB, or an SQLite file:", "users, channels, what waits"),
        ),
        Box("bridges", 254, 286, 100, 62, ("FCM, APNs,", "ADM, GCM")),
        Box("mobile devices", 246, 390, 108, 28),
    ),
    arrows=(
        Arrow(
            "user agents",
            "connection nodes",
            ((78, 48), (78, 120)),
            "WebSocket, port 8080",
            (Text("WebSocket,", 86, 66), Text("port 8080", 86, 80)),
            both=True,
        ),
        Arrow(
            "application servers",
            "endpoint nodes",
            ((282, 48), (282, 120)),
            "POST over HTTP, port 8082",
            (Text("POST,", 274, 66, "end"), Text("port 8082", 274, 80, "end")),
        ),
        Arrow(
            "endpoint nodes",
            "connection nodes",
            ((218, 157), (142, 157)),
            "PUT /push with a message, PUT /notif when one was stored, port 8081",
            (
                Text("PUT /push,", 181, 137, "middle"),
                Text("PUT /notif,", 181, 150, "middle"),
                Text("port 8081", 181, 172, "middle"),
            ),
        ),
        Arrow(
            "connection nodes",
            "connection nodes",
            ((62, 194), (62, 220), (90, 220), (90, 194)),
            "to another one: DELETE /notif when a user agent has moved, PUT /notif, port 8081",
            (Text("DELETE, PUT /notif", 97, 216),),
        ),
        Arrow(
            "connection nodes",
            "storage",
            ((34, 194), (34, 286)),
            "who is where, channels, what is stored, acknowledgements",
            (Text("read, write", 42, 268),),
            both=True,
        ),
        Arrow(
            "endpoint nodes",
            "storage",
            ((230, 194), (230, 286)),
            "who is where, what can't be delivered at once",
            (Text("read, write", 222, 268, "end"),),
            both=True,
        ),
        Arrow(
            "endpoint nodes",
            "bridges",
            ((304, 194), (304, 286)),
            "messages for mobile devices, over HTTPS",
            (Text("HTTPS", 296, 268, "end"),),
        ),
        Arrow(
            "bridges",
            "mobile devices",
            ((304, 348), (304, 390)),
            "in the way of the vendor",
        ),
    ),
    frames=(
        Box(
            "autopush_standalone: one process",
            2,
            96,
            356,
            138,
            ("connection node and endpoint node call each other", "storage is a file"),
        ),
    ),
)

MESSAGE = Picture(
    "message",
    "The life of a message to a browser",
    360,
    424,
    boxes=(
        Box(
            "sent by an application server",
            54,
            6,
            252,
            58,
            ("checked; refused with 4xx or 503",),
            "web.webpush.WebPushHandler.post",
            ours=True,
        ),
        Box(
            "sent at once",
            6,
            124,
            134,
            58,
            ("kept in memory",),
            "session.direct.send",
            ours=True,
        ),
        Box(
            "stored",
            216,
            124,
            138,
            58,
            ("for its TTL at most",),
            "db.Store.store_message",
            ours=True,
        ),
        Box(
            "sent from storage",
            216,
            244,
            138,
            58,
            ("ten at a time",),
            "session.drain.advance",
            ours=True,
        ),
        Box("gone", 54, 362, 252, 56, ("what the user agent has", "doesn't come again")),
    ),
    arrows=(
        Arrow(
            "sent by an application server",
            "sent at once",
            ((96, 64), (96, 124)),
            "the user agent is connected",
            (Text("connected", 88, 98, "end"),),
        ),
        Arrow(
            "sent by an application server",
            "stored",
            ((264, 64), (264, 124)),
            "the user agent is away, or its node is busy",
            (Text("away, busy", 272, 98),),
        ),
        Arrow(
            "sent at once",
            "stored",
            ((140, 153), (216, 153)),
            "the connection ends without an acknowledgement; with store_direct at once",
            (
                Text("connection", 178, 147, "middle"),
                Text("ends", 178, 167, "middle"),
            ),
        ),
        Arrow(
            "stored",
            "sent from storage",
            ((250, 182), (250, 244)),
            "the user agent says hello, or its node is told with PUT /notif",
            (Text("hello, or", 244, 222, "end"), Text("PUT /notif", 244, 236, "end")),
        ),
        Arrow(
            "sent from storage",
            "stored",
            ((336, 244), (336, 182)),
            "the connection ends without an acknowledgement",
            (Text("connection", 330, 210, "end"), Text("ends", 330, 223, "end")),
        ),
        Arrow(
            "sent at once",
            "gone",
            ((84, 182), (84, 362)),
            "acknowledged",
            (Text("ack", 76, 342, "end"),),
        ),
        Arrow(
            "sent from storage",
            "gone",
            ((270, 302), (270, 362)),
            "acknowledged, and storage knows it: session.settle",
            (Text("ack", 278, 342),),
        ),
        Arrow(
            "stored",
            "gone",
            ((232, 182), (232, 196), (178, 196), (178, 362)),
            "its TTL is over, another one of its topic has replaced it, or its channel has ended",
            (
                Text("TTL over,", 170, 300, "end"),
                Text("replaced,", 170, 314, "end"),
                Text("unsubscribed", 170, 328, "end"),
            ),
        ),
    ),
)

UNIFIEDPUSH = Picture(
    "unifiedpush",
    "The way of a message with UnifiedPush",
    360,
    206,
    boxes=(
        Box("server of the app", 6, 6, 160, 44, ("Mastodon and others",)),
        Box("autopush", 242, 6, 112, 44, ("this service",), ours=True),
        Box("application", 18, 146, 124, 44),
        Box("distributor", 230, 146, 112, 44, ("such as Sunup",)),
    ),
    arrows=(
        Arrow(
            "server of the app",
            "autopush",
            ((166, 28), (242, 28)),
            "POST of an encrypted message",
            (Text("POST", 204, 21, "middle"),),
        ),
        Arrow(
            "autopush",
            "distributor",
            ((286, 50), (286, 146)),
            "WebSocket, one for all applications",
            (Text("WebSocket", 278, 92, "end"),),
            both=True,
        ),
        Arrow(
            "distributor",
            "application",
            ((230, 168), (142, 168)),
            "the endpoint, then messages",
            (Text("endpoint,", 186, 148, "middle"), Text("messages", 186, 161, "middle")),
        ),
        Arrow(
            "application",
            "server of the app",
            ((80, 146), (80, 50)),
            "endpoint and keys",
            (Text("endpoint, keys", 88, 92),),
        ),
    ),
    frames=(Box("phone or desktop", 6, 116, 348, 84, ("application", "distributor")),),
)

PROXY = Picture(
    "proxy",
    "A reverse proxy in front of the service",
    360,
    270,
    boxes=(
        Box("user agents", 6, 6, 140, 42, ("browsers, phones",)),
        Box("application servers", 206, 6, 148, 42, ("that send",)),
        Box("reverse proxy", 76, 112, 208, 44, ("TLS, certificate, port 443",)),
        Box("autopush_standalone", 76, 218, 208, 44, ("port 8080 on loopback",), ours=True),
    ),
    arrows=(
        Arrow(
            "user agents",
            "reverse proxy",
            ((112, 48), (112, 112)),
            "WebSockets, wss://push.example.org/",
            (Text("wss://", 104, 84, "end"),),
            both=True,
        ),
        Arrow(
            "application servers",
            "reverse proxy",
            ((248, 48), (248, 112)),
            "POST, https://push.example.org/",
            (Text("https://", 256, 84),),
        ),
        Arrow(
            "reverse proxy",
            "autopush_standalone",
            ((180, 156), (180, 218)),
            "both without TLS, and the address of the client",
            (Text("both without TLS,", 188, 182), Text("X-Forwarded-For", 188, 196)),
            both=True,
        ),
    ),
)

PICTURES = {picture.name: picture for picture in (PROCESSES, MESSAGE, UNIFIEDPUSH, PROXY)}
