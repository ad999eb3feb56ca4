"""spec/bridges 5 and 11: legacy FCM, against the stand-in."""

from unittest import mock

from autopush.exceptions import RouterException
from autopush.router.fcm import FCMRouter
from autopush.tests.router.bridge_support import (
    HEADERS,
    PATIENT,
    BridgeTestCase,
    options_of,
)

TOKEN = "device-token-that-nobody-may-see"
KEY = "automock-fcm-key"
LATER = "Please try request later."


class FCMTestCase(BridgeTestCase):
    STAND_IN = "fcm_legacy"
    APP = "fcmapp"
    SECRETS = (TOKEN, KEY)

    def make_router(self, **changes):
        settings = {
            "timeout": PATIENT,
            "version": 0,
            "ttl": 60,
            "dryrun": False,
            "max_data": 4096,
            "collapsekey": "simplepush",
            "creds": options_of(self.bridge, "fcm_creds"),
        }
        return FCMRouter(self.conf, {**settings, **changes}, self.metrics)

    @property
    def http(self):
        return self.router.clients["fcmapp"]._client

    def user(self, **router_data):
        return {
            "uaid": "a0" * 16,
            "router_type": "fcm",
            "router_data": {"token": TOKEN, "app_id": "fcmapp", **router_data},
        }


class TestRegister(FCMTestCase):
    """Section 5"""

    def test_register(self):
        self.assert_registers({"app_id": "fcmapp"}, {"senderid": "fcmapp"})

    def test_refused(self):
        text = "connect info missing FCM Instance 'token'"
        self.assertEqual(self.refused({}), (text, 401, None))
        self.assertEqual(self.refused({"token": TOKEN}, "x"), ("Invalid SenderID", 400, 105))


class TestStart(FCMTestCase):
    """Section 2.4"""

    def fails(self, creds):
        with self.assertRaises(OSError) as caught:
            self.make_router(creds=creds)
        self.assertEqual(str(caught.exception), "FCM Bridge not initiated in main")
        self.assertIn("error", self.logged("Could not instantiate FCM "))

    def test_bad_credentials(self):
        with mock.patch.dict("os.environ"):
            for creds in (
                None,
                {"a": {"auth": ""}},
                {"a": {}},
                {"a": {"auth": "k", "endpoint": 5}},
            ):
                self.fails(creds)

    async def test_key_from_the_environment(self):
        creds = options_of(self.bridge, "fcm_creds")
        creds["fcmapp"]["auth"] = ""
        with mock.patch.dict("os.environ", {"FCM_API_KEY": KEY}):
            await self.replace_router(creds=creds)
        self.assertEqual((await self.send()).status_code, 201)

    def test_warning(self):
        self.assertEqual(self.logged("Google has ended the legacy FCM protocol"), ["warn"])
        self.assertEqual(self.logged("Starting FCM router..."), ["debug"])

    async def test_endpoint_option(self):
        creds = options_of(self.bridge, "fcm_creds")
        endpoint = creds["fcmapp"].pop("endpoint")
        await self.replace_router(creds=creds, endpoint=endpoint)
        self.assertEqual((await self.send()).status_code, 201)

    def test_default_endpoint(self):
        router = self.make_router(creds={"a": {"auth": "k"}})
        self.assertEqual(router.clients["a"]._endpoint, "https://fcm.googleapis.com/fcm/send")


class TestRequest(FCMTestCase):
    async def test_without_data(self):
        answer = await self.send(ttl=120)
        self.assertEqual((answer.status_code, answer.headers["TTL"]), (201, "120"))
        self.assertEqual(
            self.last["text"],
            '{"collapse_key":"webpush","data":{"chid":"76dfb18c1eb14f9280a57fdf8d462b5c"},'
            f'"notification":{{}},"priority":"high","time_to_live":120,"to":"{TOKEN}"}}',
        )
        self.assertEqual(self.last["headers"]["content-type"], "application/json")
        self.assertEqual(self.last["headers"]["authorization"], f"key={KEY}")

    async def test_urgency(self):
        # spec/broadcasts 2
        for level, priority in enumerate(("normal", "normal", "high", "high")):
            await self.send(urgency=level)
            self.assertEqual(self.last["payload"]["priority"], priority)

    async def test_encodings(self):
        await self.assert_encodings()

    async def test_ttl_is_clamped(self):
        await self.assert_clamped("time_to_live")

    async def test_dry_run(self):
        await self.replace_router(dryrun=True)
        await self.send()
        self.assertIs(self.last["payload"]["dry_run"], True)

    async def test_size(self):
        self.assertEqual((await self.send(b"x" * 3072)).status_code, 201)
        text = (
            "This message is intended for a constrained device and is limited to 3070 bytes."
            " Converted buffer too long by 2 bytes"
        )
        for encoding in HEADERS:
            answer = await self.send(b"x" * 3073, encoding)
            self.assert_answer(answer, 413, 104, text)

    async def test_metrics(self):
        await self.assert_counted("fcm")

    async def test_no_token(self):
        answer = await self.send(user=self.user(token=""))
        self.assertIsInstance(answer, RouterException)
        text = "No registration token found. Rejecting message."
        self.assert_answer(answer, 410, 106, text)

    async def test_unknown_app(self):
        answer = await self.send(user=self.user(app_id="other"))
        self.assert_answer(answer, 500, None, "Server error")
        self.assert_kept(answer, "fcm")
        level = self.logged("Missing FCM bridge credentials for other")
        self.assertEqual(level, ["critical"])


class TestAnswers(FCMTestCase):
    """The tables of section 5 with B3, B4 and B5"""

    FAILURE = ["platform:fcm", "reason:failure", "error:502", "errno:0"]

    async def test_new_id(self):
        """B5"""
        self.bridge.configure({"moved": {TOKEN: "new"}})
        answer = await self.send()
        self.assert_answer(answer, 503, None, "Please try request again.")
        self.assertEqual(answer.router_data, {"token": "new", "app_id": "fcmapp"})
        self.assertEqual(self.tags()[1], "reason:reregister")

    async def test_reasons(self):
        for reason, status, errno, body, gone in (
            (
                "MissingRegistration",
                500,
                1,
                "'to' or 'registration_id' is blank or invalid",
                False,
            ),
            ("InvalidRegistration", 410, 105, "registration_id is invalid", True),
            ("NotRegistered", 410, 103, "device has unregistered with FCM", True),
            ("InvalidPackageName", 500, None, LATER, False),
            ("MismatchSenderid", 500, 900, LATER, False),
            ("MessageTooBig", 413, 104, "Message length was too big: 7", False),
            ("InvalidDataKey", 500, None, LATER, False),
            ("InvalidTtl", 400, 111, "Invalid TimeToLive 60", False),
            ("InternalServerError", 500, None, "FCM internal server error", False),
            ("DeviceMessageRateExceeded", 503, 4, "Too many messages for this device", False),
            ("TopicsMessageRateExceeded", 503, None, LATER, False),
            ("Unreported", 500, None, LATER, False),
            ("SomethingNew", 500, None, LATER, False),
        ):
            self.metrics.calls.clear()
            answer = await self.answered({"error": reason}, b"12345")
            self.assert_answer(answer, status, errno, body)
            self.assertNotIsInstance(answer, RouterException)  # a 410 of those would drop
            self.assertEqual(answer.router_data, {} if gone else None, reason)
            self.assertEqual(self.tags(), self.FAILURE)

    async def test_unavailable(self):
        """B3: it was answered 200 and the user dropped"""
        answer = await self.answered({"error": "Unavailable"})
        self.assert_retry(answer, 60)
        answer = await self.answered({"error": "Unavailable", "headers": {"Retry-After": "8"}})
        self.assert_retry(answer, 8)

    async def test_critical_reasons_are_logged(self):
        for reason, text in (
            ("InvalidPackageName", "Invalid Package Name specified"),
            ("MismatchSenderid", "Invalid SenderID used"),
            ("InvalidDataKey", "Payload contains an invalid or restricted key value"),
            ("TopicsMessageRateExceeded", "Too many subscribers for this topic"),
        ):
            await self.answered({"error": reason})
            self.assertEqual(self.logged(text), ["critical"])

    async def test_without_reason(self):
        for content in (
            {"failure": 1, "results": [{}]},
            {"failure": 1, "results": []},
            {"failure": 0, "results": []},
            {"failure": 1},
            {},
        ):
            answer = await self.answered({"json": content})
            self.assert_answer(answer, 500, None, LATER)
            self.assert_kept(answer, "fcm")
        self.assertEqual(self.logged("Error has no reported reason."), ["critical"] * 5)

    async def test_401(self):
        answer = await self.answered({"status": 401})
        self.assert_answer(answer, 500, None, "Server error")
        self.assertEqual(self.logged("Authentication Error: "), ["error"])

    async def test_bad_answers(self):
        scripts = [{"status": status, "body": "x"} for status in (400, 404, 500, 502, 503)]
        for script in (*scripts, {"body": ""}, {"body": "x"}, {"json": []}):
            answer = await self.answered(script)
            self.assert_answer(answer, 500, None, "Server error")
            self.assert_kept(answer, "fcm")
        self.assertEqual(self.logged("Unhandled FCM Error: "), ["error"] * 8)

    async def test_retry_after(self):
        """B31: the worker slept"""
        answer = await self.answered({"status": 503, "headers": {"Retry-After": "2"}, "json": {}})
        self.assert_retry(answer, 2)
        self.assertEqual(len(self.bridge.messages), 1)


class TestNoAnswer(FCMTestCase):
    async def test_actions(self):
        for action in ("hang", "reset", "close", "close_mid_body", "garbage"):
            self.metrics.calls.clear()
            send = self.given_up if action == "hang" else self.answered
            answer = await send({"action": action})
            self.assert_answer(answer, 502, None, "Server error")
            self.assertFalse(answer.log_exception)
            tags = [
                "platform:fcm",
                "reason:connection_unavailable",
                "error:502",
                "errno:0",
            ]
            self.assertEqual(self.tags(), tags)
        self.assertEqual(self.logged("Could not connect to FCM server: "), ["warn"] * 5)


def test_names():
    """spec/python-api 7"""
    assert FCMRouter._route and FCMRouter._process_reply
    assert FCMRouter.reasonTable["NotRegistered"].errno == 103
    assert FCMRouter.MAX_TTL == 2419200
