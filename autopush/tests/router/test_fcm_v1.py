"""spec/bridges 6, 10 and 11: FCM HTTP v1, against the stand-in."""

import json
import time
from unittest import mock

from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

from autopush.exceptions import RouterException
from autopush.router.bridgehttp import MAX_CONNECTIONS, BodyReader, TokenCache
from autopush.router.fcm_v1 import FCMv1Router
from autopush.router.fcmv1client import ACCEPTABLE_AGE, RENEW_EARLY, FCMv1
from autopush.tests.router.bridge_support import (
    CHID,
    HEADERS,
    PATIENT,
    SENT_KEYS,
    BridgeTestCase,
    NoAnswer,
    TokenFetches,
    options_of,
)

TOKEN = "device-token-that-nobody-may-see"
TOKEN_LIFETIME = 3600
"""Seconds, of the stand-in's access tokens."""
GONE = "FCM Recipient no longer available"


class FCMv1TestCase(BridgeTestCase):
    STAND_IN = "fcm"
    APP = "fcmapp"
    SECRETS = (TOKEN, "PRIVATE KEY", "eyJ")

    def make_router(self, **changes):
        settings = {
            "timeout": PATIENT,
            "version": 1,
            "ttl": 60,
            "dryrun": False,
            "max_data": 4096,
            "collapsekey": "simplepush",
            "creds": options_of(self.bridge, "fcm_creds"),
        }
        return FCMv1Router(self.conf, {**settings, **changes}, self.metrics)

    @property
    def http(self):
        return self.client._client

    def user(self, **router_data):
        return {
            "uaid": "a0" * 16,
            "router_type": "fcm",
            "router_data": {"token": TOKEN, "app_id": "fcmapp", **router_data},
        }

    @property
    def client(self):
        return self.router.clients["fcmapp"]


class TestRegister(FCMv1TestCase):
    """Section 6.1"""

    def test_register(self):
        self.assert_registers({"app_id": "fcmapp"}, {"senderid": "fcmapp"})

    def test_no_token(self):
        text = "connect info missing FCM Instance 'token'"
        self.assertEqual(self.refused({}), (text, 401, None))

    def test_unknown_app(self):
        self.assertEqual(self.refused({"token": TOKEN}, "x"), ("Invalid SenderID", 400, 105))


class TestStart(FCMv1TestCase):
    """Section 2.4, B29"""

    def fails(self, **entry):
        creds = options_of(self.bridge, "fcm_creds")
        creds["fcmapp"].update(entry)
        with self.assertRaises(OSError) as caught:
            self.make_router(creds=creds)
        self.assertEqual(str(caught.exception), "FCMv1 Bridge not initiated in main")
        self.assertIn("error", self.logged("Could not instantiate FCMv1: missing credentials,"))

    def test_bad_credentials(self):
        self.fails(auth="/nonexistent.json")
        self.fails(auth="")
        self.fails(auth=None)
        self.fails(projectid=None)
        self.fails(base_url="ftp://x")
        self.fails(ca_file="/nonexistent.pem")
        self.fails(ca_file=self.bridge.options()["fcm_creds"]["fcmapp"]["auth"])

    def test_no_creds(self):
        with self.assertRaises(OSError):
            self.make_router(creds=None)

    def test_log(self):
        self.assertEqual(self.logged("Starting FCMv1 router..."), ["debug"])


class TestRequest(FCMv1TestCase):
    """Section 6.2"""

    async def test_without_data(self):
        answer = await self.send(ttl=120)
        self.assertEqual((answer.status_code, answer.headers["TTL"]), (201, "120"))
        self.assertEqual(
            self.last["payload"],
            {
                "message": {
                    "token": TOKEN,
                    "android": {
                        "ttl": "120s",
                        "priority": "HIGH",
                        "data": {"chid": CHID.replace("-", "")},
                    },
                }
            },
        )
        self.assertEqual(self.last["target"], "/v1/projects/automock/messages:send")
        headers = self.last["headers"]
        self.assertEqual(headers["content-type"], "application/json; UTF-8")
        self.assertIn(headers["authorization"].removeprefix("Bearer "), self.bridge.access_tokens)

    async def test_urgency(self):
        # spec/broadcasts 2
        for level, priority in enumerate(("NORMAL", "NORMAL", "HIGH", "HIGH")):
            await self.send(urgency=level)
            self.assertEqual(self.last["payload"]["message"]["android"]["priority"], priority)

    async def test_encodings(self):
        for encoding in HEADERS:
            answer = await self.send(b"\x00secret\xff", encoding)
            self.assertEqual(answer.status_code, 201)
            self.assertEqual(
                self.last["payload"]["message"]["android"]["data"],
                {
                    "chid": CHID.replace("-", ""),
                    "con": encoding,
                    "body": "AHNlY3JldP8",
                    **SENT_KEYS[encoding],
                },
            )

    async def test_ttl_is_clamped(self):
        for ttl, sent in ((None, 60), (0, 60), (59, 60), (61, 61), (5184000, 2419200)):
            answer = await self.send(ttl=ttl)
            self.assertEqual(answer.headers["TTL"], str(sent))
            self.assertEqual(self.last["payload"]["message"]["android"]["ttl"], f"{sent}s")

    async def test_minimum_ttl(self):
        await self.replace_router(ttl=300)
        self.assertEqual((await self.send(ttl=10)).headers["TTL"], "300")

    async def test_dry_run(self):
        """B7"""
        await self.replace_router(dryrun=True)
        self.assertEqual((await self.send()).status_code, 201)
        self.assertIs(self.last["payload"]["validate_only"], True)

    async def test_metrics(self):
        await self.assert_counted("fcmv1")


class TestChecks(FCMv1TestCase):
    """Section 6.2, before anything is sent"""

    def tearDown(self):
        self.assertEqual(self.bridge.messages, [])

    async def test_no_token(self):
        for token in ("", None):
            answer = await self.send(user=self.user(token=token))
            text = "No registration token found. Rejecting message."
            self.assert_answer(answer, 410, 106, text)

    async def test_unknown_app(self):
        """B8: the record is kept"""
        answer = await self.send(user=self.user(app_id="other"))
        self.assert_answer(answer, 500, 900, "Server error")
        level = self.logged("Missing FCM bridge credentials for other")
        self.assertEqual(level, ["critical"])

    async def test_aes128gcm_too_long(self):
        answer = await self.send(b"x" * 3072)
        text = (
            "Final composed message payload too long for recipient: 4172 bytes."
            " Please try a shorter message."
        )
        self.assert_answer(answer, 413, 104, text)
        answer = await self.send(b"x" * 3073)
        text = (
            "This message is intended for a constrained device and is limited to 4096 bytes."
            " Message too long by about 2 bytes"
        )
        self.assert_answer(answer, 413, 104, text)

    async def test_aesgcm_too_long(self):
        for encoding in ("aesgcm", "aesgcm128"):
            members = {"chid": "c" * 32, "con": encoding, "body": "", **SENT_KEYS[encoding]}
            limit = 4096 - len(json.dumps(members))
            size = limit * 3 // 4 + 1
            excess = -(-size * 4 // 3) - limit
            answer = await self.send(b"x" * size, encoding)
            text = (
                f"This message is intended for a constrained device and is limited to {limit}"
                f" bytes. Message too long by about {-(-excess * 10 // 13)} bytes"
            )
            self.assert_answer(answer, 413, 104, text)


class TestLongest(FCMv1TestCase):
    """The longest messages that pass"""

    async def test_aes128gcm(self):
        self.assertEqual((await self.send(b"x" * 3000)).status_code, 201)

    async def test_aesgcm(self):
        for encoding in ("aesgcm", "aesgcm128"):
            members = {"chid": "c" * 32, "con": encoding, "body": "", **SENT_KEYS[encoding]}
            limit = 4096 - len(json.dumps(members))
            self.assertEqual((await self.send(b"x" * (limit * 3 // 4), encoding)).status_code, 201)


class TestAnswers(FCMv1TestCase):
    """Section 6.3 with the fixes, and the error codes of section 10"""

    async def test_success(self):
        for content in ({"name": "x"}, {}):
            answer = await self.answered({"json": content})
            self.assertEqual(answer.status_code, 201)
            self.assertIsNone(answer.router_data)

    async def test_unregistered(self):
        self.bridge.configure({"unregistered": [TOKEN]})
        answer = await self.send()
        self.assertIsInstance(answer, RouterException)  # which drops the record
        self.assert_answer(answer, 404, 106, GONE)
        self.assertFalse(answer.log_exception)
        tags = ["platform:fcmv1", "reason:recipient_gone", "error:404", "errno:106"]
        self.assertEqual(self.tags(), tags)

    async def test_not_found_without_code(self):
        """It may be the project that is missing: nobody's subscription ends"""
        for details in ([], [{"@type": "type.googleapis.com/google.rpc.ErrorInfo"}]):
            error = {"code": 404, "status": "NOT_FOUND", "message": "m", "details": details}
            answer = await self.answered({"status": 404, "json": {"error": error}})
            self.assertEqual((answer.status_code, answer.errno), (500, None))
            self.assertTrue(answer.response_body.startswith("Server error: NOT_FOUND: m"))
        self.assertEqual(self.logged("FCM Error: NOT_FOUND"), ["warn", "warn"])

    async def test_invalid_token(self):
        """Permanent, if it is the token that is invalid"""
        answer = await self.answered({"error": "INVALID_ARGUMENT", "field": "message.token"})
        self.assertIsInstance(answer, RouterException)
        self.assert_answer(answer, 410, 106, GONE)

    async def test_invalid_argument(self):
        answer = await self.answered({"error": "INVALID_ARGUMENT", "field": "message.data[x]"})
        self.assertEqual((answer.status_code, answer.errno), (500, None))
        text = "Server error: INVALID_ARGUMENT: Request contains an invalid argument. [{"
        self.assertTrue(answer.response_body.startswith(text), answer.response_body)
        tags = ["platform:fcmv1", "reason:server_error", "error:502", "errno:0"]
        self.assertEqual(self.tags(), tags)
        self.assertEqual(self.logged("FCM Error: INVALID_ARGUMENT"), ["warn"])

    async def test_error_without_details(self):
        error = {"error": {"status": "PERMISSION_DENIED", "message": f"no {TOKEN}"}}
        answer = await self.answered({"status": 403, "json": error})
        text = "Server error: PERMISSION_DENIED: no ... No Details"
        self.assert_answer(answer, 500, None, text)
        self.assert_kept(answer, "fcm")

    async def test_error_with_status_200(self):
        error = {"error": {"status": "X", "message": "m"}}
        answer = await self.answered({"status": 200, "json": error})
        self.assert_answer(answer, 500, None, "Server error: X: m No Details")

    async def test_sender_id_mismatch(self):
        """Whoever mixed it up: the record is kept, and no sender told that it has ended"""
        answer = await self.answered({"error": "SENDER_ID_MISMATCH"})
        self.assert_answer(answer, 500, 900, "Invalid SenderID")
        self.assert_kept(answer, "fcm")

    async def test_quota_exceeded(self):
        answer = await self.answered({"error": "QUOTA_EXCEEDED", "headers": {"Retry-After": "7"}})
        self.assert_retry(answer, 7)
        self.assertEqual(self.tags()[:2], ["platform:fcmv1", "reason:retry"])
        self.assert_retry(await self.answered({"error": "QUOTA_EXCEEDED"}), 60)

    async def test_unavailable(self):
        self.assert_retry(await self.answered({"error": "UNAVAILABLE"}), 60)
        now = time.time()
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now + 100))
        answer = await self.answered({"error": "UNAVAILABLE", "headers": {"Retry-After": date}})
        passed = time.time() - now
        self.assertTrue(98 - passed <= int(answer.headers["Retry-After"]) <= 101)
        answer = await self.answered({"status": 503, "body": "<html>"})
        self.assert_retry(answer, 60)

    async def test_internal(self):
        """B2: it was counted as success"""
        for script in (
            {"error": "INTERNAL"},
            {"error": "UNSPECIFIED_ERROR"},
            {"status": 500, "body": "oops"},
            {"status": 502, "body": ""},
        ):
            self.metrics.calls.clear()
            answer = await self.answered(script)
            self.assert_answer(answer, 502, None, "Server error")
            self.assert_kept(answer, "fcm")
            tags = ["platform:fcmv1", "reason:server_error", "error:502", "errno:0"]
            self.assertEqual(self.tags(), tags)
        answer = await self.answered({"error": "INTERNAL", "headers": {"Retry-After": "3"}})
        self.assert_retry(answer, 3)

    async def test_third_party_auth_error(self):
        answer = await self.answered({"error": "THIRD_PARTY_AUTH_ERROR"})
        self.assert_answer(answer, 500, 901, "Server error")
        level = self.logged("FCM Authentication Error: Authentication Error")
        self.assertEqual(level, ["error"])

    async def test_not_json(self):
        for status, body in ((200, "<html>"), (404, "x"), (400, ""), (200, "[]"), (302, "{}")):
            answer = await self.answered({"status": status, "body": body})
            self.assert_answer(answer, 500, None, f"Server error: Unknown error response: {body}")
            self.assert_kept(answer, "fcm")

    async def test_redirects_are_not_followed(self):
        headers = {"Location": f"{self.bridge.url}/v1/projects/automock/messages:send"}
        answer = await self.answered({"status": 307, "headers": headers, "body": "x"})
        self.assertEqual(answer.status_code, 500)
        self.assertEqual(len(self.bridge.messages), 1)

    async def test_odd_errors(self):
        for error in ("text", 5, [1], {"details": "x"}, {"details": [None, {"@type": 1}]}):
            answer = await self.answered({"status": 400, "json": {"error": error}})
            self.assertEqual(answer.status_code, 500)


class TestNoAnswer(NoAnswer, FCMv1TestCase):
    """B16: 502, errno 902 and 903; the device is kept"""

    NAME = "FCM"

    async def gone(self, script, errno, reason):
        await self.send()  # so that there is a token
        self.metrics.calls.clear()
        send = self.given_up if reason == "timeout" else self.answered
        answer = await send(script)
        self.assert_answer(answer, 502, errno, "Server error")
        self.assert_kept(answer, "fcm")
        tags = ["platform:fcmv1", f"reason:{reason}", "error:502", f"errno:{errno}"]
        self.assertEqual(self.tags(), tags)
        self.assertFalse(answer.log_exception)
        self.assertEqual((await self.send()).status_code, 201)

    async def test_slow(self):
        await self.gone({"held": True}, 903, "timeout")

    async def test_endless_body(self):
        await self.gone({"body": "x" * 70_000}, 902, "connection_unavailable")

    async def test_hang_mid_body(self):
        """The connection is cut: nothing stays open"""
        script = {"headers": {"Content-Length": "1000"}, "json": {}}
        self.bridge.script.add({})
        await self.send()
        begun: list[bytes] = []
        with (
            mock.patch(
                "automock.web.Reply.encode",
                lambda *_: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
            ),
            mock.patch.object(BodyReader, "dataReceived", lambda _, data: begun.append(data)),
        ):
            answer = await self.given_up(script, lambda: begun)
        self.assert_answer(answer, 502, 903, "Server error")
        await self.until(lambda: not self.bridge._server.connections)

    async def test_refused_connection(self):
        creds = options_of(self.bridge, "fcm_creds")
        creds["fcmapp"]["base_url"] = "https://127.0.0.1:1"
        await self.replace_router(creds=creds)
        self.assert_answer(await self.send(), 502, 902, "Server error")

    async def test_unknown_host(self):
        creds = options_of(self.bridge, "fcm_creds")
        creds["fcmapp"]["base_url"] = "https://fcm.invalid"
        await self.replace_router(creds=creds)
        self.assert_answer(await self.send(), 502, 902, "Server error")

    async def test_untrusted_certificate(self):
        await self.send()
        client = self.client
        creds = options_of(self.bridge, "fcm_creds")
        del creds["fcmapp"]["ca_file"]
        await self.replace_router(creds=creds)
        self.client._tokens = client._tokens
        self.assert_answer(await self.send(), 502, 902, "Server error")
        self.assertEqual(len(self.bridge.messages), 1)


class TestAccessToken(TokenFetches, FCMv1TestCase):
    """Sections 6.1 and 10: fetched once, renewed before its end, one fetch at a time"""

    def deferred_send(self, **kwargs):
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(self.send(**kwargs))

    def stop_the_clock(self):
        """Tokens grow old by this clock only."""
        clock = Clock()
        self.client._tokens._seconds = clock.seconds
        return clock

    async def test_stale_token_is_used_while_it_is_renewed(self):
        clock = self.stop_the_clock()
        await self.send()
        first = self.last["headers"]["authorization"]
        clock.advance(TOKEN_LIFETIME - RENEW_EARLY)
        self.bridge.script.add({"on": "token", "held": True})
        answers = await gatherResults([self.deferred_send() for _ in range(10)])
        self.assertEqual({answer.status_code for answer in answers}, {201})
        self.assertEqual(self.last["headers"]["authorization"], first)
        self.bridge.script.release()
        await self.until(lambda: not self.client._tokens._fetching)
        await self.send()
        self.assertNotEqual(self.last["headers"]["authorization"], first)
        self.assertEqual(len(self.bridge.token_requests), 2)

    async def test_token_endpoint_refuses(self):
        """B28: 502/901"""
        self.stop_the_clock()
        self.bridge.script.add(
            {"on": "token", "status": 400, "json": {"error": "invalid_grant"}, "times": 2}
        )
        answers = await gatherResults([self.deferred_send() for _ in range(5)])
        for answer in answers:
            self.assert_answer(answer, 502, 901, "Server error")
            self.assert_kept(answer, "fcm")
        self.assertEqual(self.bridge.messages, [])
        self.assertEqual(len(self.bridge.token_requests), 1)
        tags = ["platform:fcmv1", "reason:auth_failure", "error:502", "errno:901"]
        self.assertEqual(self.metrics.errors()[0], tags)
        self.assertIn("error", self.logged("FCM Authentication Error: RefreshError: invalid_grant"))
        # held off for a second, so that a broken account isn't a storm
        await self.send()
        self.assertEqual(len(self.bridge.token_requests), 1)

    async def test_recovers(self):
        clock = self.stop_the_clock()
        self.bridge.script.add({"on": "token", "action": "reset"})
        self.assert_answer(await self.send(), 502, 901, "Server error")
        clock.advance(TokenCache.HOLD_OFF)
        self.assertEqual((await self.send()).status_code, 201)

    async def test_reply_without_access_token(self):
        """B9"""
        self.bridge.script.add({"on": "token", "json": {"expires_in": 3600, "id": "s3cr3t"}})
        self.assert_answer(await self.send(), 502, 901, "Server error")
        self.assertNotIn("s3cr3t", repr(self.events))

    async def test_hanging_token_endpoint(self):
        await self.replace_router(timeout=0.3)
        self.bridge.script.add({"on": "token", "action": "hang"})
        self.assert_answer(await self.send(), 502, 901, "Server error")

    async def test_event_loop_goes_on_meanwhile(self):
        self.bridge.script.add({"on": "token", "held": True})
        result = self.deferred_send()
        await self.until(lambda: self.bridge.token_requests)
        self.assertFalse(result.called)
        self.bridge.script.release()
        self.assertEqual((await result).status_code, 201)

    async def test_refused_old_token_is_replaced(self):
        clock = self.stop_the_clock()
        await self.send()
        self.bridge.access_tokens.clear()
        # just fetched: its age can't be the reason
        self.assert_answer(await self.send(), 500, 901, "Server error")
        self.assertEqual(len(self.bridge.token_requests), 1)
        clock.advance(ACCEPTABLE_AGE)
        self.assert_answer(await self.send(), 500, 901, "Server error")
        self.assertEqual((await self.send()).status_code, 201)
        self.assertEqual(len(self.bridge.token_requests), 2)


class TestManySends(FCMv1TestCase):
    """A slow bridge under many concurrent sends"""

    async def test_slow_bridge(self):
        self.bridge.script.add({"held": True, "times": 500})
        sends = [TestAccessToken.deferred_send(self) for _ in range(500)]
        # The loop is free: it turns although nobody is answered.
        await self.until(lambda: len(self.bridge.messages) == MAX_CONNECTIONS)
        self.assertFalse(any(send.called for send in sends))
        # a few for tokens, or just being closed
        self.assertLessEqual(len(self.bridge._server.connections), MAX_CONNECTIONS + 5)
        self.bridge.script.release()
        answers = await gatherResults(sends)
        self.assertEqual({answer.status_code for answer in answers}, {201})

    async def test_bounded_queue(self):
        await self.send()
        self.client._client.max_connections = 2
        self.client._client.max_waiting = 3
        self.bridge.script.add({"held": True, "action": "reset", "times": 2})
        sends = [TestAccessToken.deferred_send(self) for _ in range(6)]
        await self.until(lambda: len(self.bridge.messages) == 3)
        self.assertEqual(sum(send.called for send in sends), 1)
        self.bridge.script.release()
        answers = await gatherResults(sends)
        statuses = sorted(answer.status_code for answer in answers)
        # one was turned away at once, two were cut off; the others waited for those
        self.assertEqual(statuses, [201, 201, 201, 502, 502, 503])
        refused = next(answer for answer in answers if answer.status_code == 503)
        self.assert_retry(refused, 60)


def test_names():
    """spec/python-api 7"""
    from autopush.router import fcm_v1, fcmv1client
    from autopush.router.fcm import FCMRouter

    assert issubclass(FCMv1Router, FCMRouter)
    assert fcm_v1.MAX_FCM_DATA == 3015
    assert FCMv1.send and FCMv1._get_access_token and FCMv1._build_message
    assert FCMv1.process and FCMv1.error
    assert hasattr(fcmv1client, "ServiceAccountCredentials")
    assert issubclass(fcmv1client.FCMAuthenticationError, Exception)
