"""spec/bridges 4 and 11: GCM, against the stand-in."""

from autopush.exceptions import InvalidConfig, RouterException
from autopush.router import gcm
from autopush.router.gcmclient import GCM, GCMAuthenticationError, JSONMessage
from autopush.tests.router.bridge_support import (
    CHID,
    HEADERS,
    PATIENT,
    BridgeTestCase,
    NoAnswer,
    options_of,
)

TOKEN = "device-token-that-nobody-may-see"
KEY = "automock-gcm-key"


class GCMTestCase(BridgeTestCase):
    STAND_IN = "gcm"
    APP = "12345"
    SECRETS = (TOKEN, KEY)

    def make_router(self, **changes):
        settings = {
            "timeout": PATIENT,
            "ttl": 60,
            "dryrun": False,
            "max_data": 4096,
            "collapsekey": "simplepush",
            "senderIDs": options_of(self.bridge, "senderid_list"),
            "endpoint": options_of(self.bridge, "gcm_endpoint"),
        }
        return gcm.GCMRouter(self.conf, {**settings, **changes}, self.metrics)

    @property
    def http(self):
        return next(iter(self.router.clients.values()))._client

    def user(self, **router_data):
        return {
            "uaid": "a0" * 16,
            "router_type": "gcm",
            "router_data": {"token": TOKEN, "creds": {"senderID": "12345"}, **router_data},
        }


class TestRegister(GCMTestCase):
    """Section 4"""

    def test_register(self):
        """The server key stays here: B26"""
        self.assert_registers({"creds": {"senderID": "12345"}}, {"senderid": "12345"})

    def test_no_token(self):
        text = "connect info missing GCM Instance 'token'"
        self.assertEqual(self.refused({}), (text, 401, None))

    def test_unknown_sender(self):
        self.assertEqual(self.refused({"token": TOKEN}, "9"), ("Invalid SenderID", 400, 105))


class TestStart(GCMTestCase):
    """Section 2.4"""

    def test_no_senders(self):
        for senders in ({}, None):
            with self.assertRaises(OSError) as caught:
                self.make_router(senderIDs=senders)
            self.assertEqual(str(caught.exception), "SenderIDs not configured.")

    def test_bad_settings(self):
        for sender in ({}, {"auth": None}, "key", {"auth": "k", "endpoint": "ftp://x"}):
            with self.assertRaises(InvalidConfig):
                self.make_router(senderIDs={"1": sender})
        with self.assertRaises(OSError):
            self.make_router(senderIDs={"1": {"auth": "k", "ca_file": "/nonexistent.pem"}})

    def test_warning(self):
        self.assertEqual(self.logged("Google has ended GCM"), ["warn"])
        self.assertEqual(self.logged("Starting GCM router..."), ["debug"])

    def test_endpoints(self):
        for endpoint, url in (
            ("a.example/x", "https://a.example/x"),
            ("http://127.0.0.1:99/x", "http://127.0.0.1:99/x"),
        ):
            self.assertEqual(GCM("k", endpoint=endpoint)._endpoint, url)
        self.assertEqual(GCM("k")._endpoint, "https://gcm-http.googleapis.com/gcm/send")


class TestRequest(GCMTestCase):
    """What is sent"""

    async def test_without_data(self):
        answer = await self.send(ttl=120)
        self.assertEqual((answer.status_code, answer.headers["TTL"]), (201, "120"))
        self.assertEqual(
            self.last["payload"],
            {
                "registration_ids": [TOKEN],
                "time_to_live": 120,
                "delay_while_idle": False,
                "dry_run": False,
                "data": {"chid": CHID.replace("-", "")},
            },
        )
        self.assertEqual(self.last["target"], "/gcm/send")
        self.assertEqual(self.last["headers"]["content-type"], "application/json")
        self.assertEqual(self.last["headers"]["authorization"], f"key={KEY}")

    async def test_encodings(self):
        await self.assert_encodings()

    async def test_ttl_is_clamped(self):
        await self.assert_clamped("time_to_live")

    async def test_dry_run(self):
        await self.send(user=self.user(dryrun=True))
        self.assertIs(self.last["payload"]["dry_run"], True)
        await self.replace_router(dryrun=True)
        await self.send()
        self.assertIs(self.last["payload"]["dry_run"], True)

    async def test_size(self):
        self.assertEqual((await self.send(b"x" * 3072)).status_code, 201)
        count = len(self.bridge.messages)
        text = (
            "This message is intended for a constrained device and is limited to 3070 bytes."
            " Converted buffer too long by 2 bytes"
        )
        for encoding in HEADERS:
            answer = await self.send(b"x" * 3073, encoding)
            self.assert_answer(answer, 413, 104, text)
        self.assertEqual(len(self.bridge.messages), count)

    async def test_limit_is_configurable(self):
        """B30"""
        await self.replace_router(max_data=8)
        self.assertEqual((await self.send(b"123456")).status_code, 201)
        self.assertEqual((await self.send(b"1234567")).status_code, 413)

    async def test_metrics(self):
        await self.assert_counted("gcm")

    async def test_old_record_with_a_key(self):
        """B26: ignored on read"""
        creds = {"senderID": "12345", "auth": "old-key"}
        self.assertEqual((await self.send(user=self.user(creds=creds))).status_code, 201)
        self.assertEqual(self.last["headers"]["authorization"], f"key={KEY}")

    async def test_endpoint_of_a_sender(self):
        senders = options_of(self.bridge, "senderid_list")
        senders["12345"]["endpoint"] = options_of(self.bridge, "gcm_endpoint")
        await self.replace_router(senderIDs=senders, endpoint="gcm.invalid/x")
        self.assertEqual((await self.send()).status_code, 201)


class TestAnswers(GCMTestCase):
    """The table of section 4 with the fixes"""

    def assert_tags(self, reason, error, errno=0):
        self.assertEqual(
            self.tags(), ["platform:gcm", f"reason:{reason}", f"error:{error}", f"errno:{errno}"]
        )

    async def test_new_id(self):
        """B5: the credentials stay"""
        self.bridge.configure({"moved": {TOKEN: "new"}})
        user = self.user(key="k", creds={"senderID": "12345", "auth": "old"})
        answer = await self.send(user=user)
        self.assert_answer(answer, 503, None, "Please try request again.")
        self.assertEqual(
            answer.router_data, {"token": "new", "creds": {"senderID": "12345"}, "key": "k"}
        )
        self.assert_tags("reregister", 503)
        user["router_data"] = answer.router_data
        self.assertEqual((await self.send(user=user)).status_code, 201)

    async def test_not_registered(self):
        self.bridge.configure({"unregistered": [TOKEN]})
        answer = await self.send()
        self.assert_answer(answer, 410, None, "Endpoint requires client update")
        self.assertEqual(answer.router_data, {})
        self.assert_tags("unregistered", 410)

    async def test_unavailable(self):
        """B2"""
        for error in ("Unavailable", "InternalServerError"):
            self.metrics.calls.clear()
            answer = await self.answered({"error": error})
            self.assert_retry(answer, 60)
            self.assert_kept(answer, "gcm")
            self.assert_tags("retry", 503)
            answer = await self.answered({"error": error, "headers": {"Retry-After": "9"}})
            self.assert_retry(answer, 9)
        self.assertEqual(self.logged("GCM retry requested: "), ["warn"] * 4)

    async def test_other_errors(self):
        """410 is said of a device that is gone, and not of our mistakes"""
        for error in ("InvalidRegistration", "MismatchSenderId", "MessageTooBig", "Odd", ""):
            gone = error == "InvalidRegistration"
            status, text = (410, "GCM recipient not available.") if gone else (500, "Server error")
            self.metrics.calls.clear()
            answer = await self.answered({"error": error})
            self.assert_answer(answer, status, None, text)
            self.assert_kept(answer, "gcm")
            self.assert_tags("failure", status)

    async def test_success_with_retry_after(self):
        self.assert_retry(await self.answered({"headers": {"Retry-After": "5"}}), 5)

    async def test_status_5xx(self):
        """B2"""
        for status in (500, 502, 503, 599):
            answer = await self.answered({"status": status, "body": "x"})
            self.assert_retry(answer, 60)
            self.assert_kept(answer, "gcm")
        answer = await self.answered({"status": 500, "headers": {"Retry-After": "4"}})
        self.assert_retry(answer, 4)
        self.assert_retry(await self.answered({"status": 429}), 60)

    async def test_bad_answers(self):
        invalid = "Server error: Recv'd invalid response from GCM"
        for script, text in (
            ({"json": {"multicast_id": 1}}, invalid),
            ({"json": []}, invalid),
            ({"json": {"results": []}}, invalid),
            ({"json": {"results": [1]}}, invalid),
            ({"json": {"results": {"0": 1}}}, invalid),
            ({"body": "<html>"}, "Server error: <html>"),
            ({"status": 400, "body": f"bad {TOKEN}"}, "Server error: bad ..."),
            ({"status": 404, "json": {"error": "nope"}}, "Server error: nope"),
            ({"status": 403, "body": "no"}, "Server error: no"),
        ):
            answer = await self.answered(script)
            self.assert_answer(answer, 500, None, text)
            self.assert_kept(answer, "gcm")

    async def test_401(self):
        answer = await self.answered({"status": 401})
        self.assert_answer(answer, 500, 901, "Server error")
        self.assertEqual(self.logged("GCM Authentication Error: "), ["error"])

    async def test_wrong_key(self):
        senders = options_of(self.bridge, "senderid_list")
        senders["12345"]["auth"] = "wrong"
        await self.replace_router(senderIDs=senders)
        self.assert_answer(await self.send(), 500, 901, "Server error")

    async def test_unknown_sender(self):
        answer = await self.send(user=self.user(creds={"senderID": "9"}))
        self.assert_answer(answer, 500, 900, "Server error")
        self.assert_kept(answer, "gcm")
        self.assertEqual(self.logged("Missing GCM bridge credentials"), ["critical"])


class TestNoAnswer(NoAnswer, GCMTestCase):
    """B16: 502, errno 902 and 903"""

    NAME = "GCM"

    async def gone(self, script, errno, reason):
        send = self.given_up if reason == "timeout" else self.answered
        answer = await send(script)
        self.assert_answer(answer, 502, errno, "Server error")
        tags = ["platform:gcm", f"reason:{reason}", "error:502", f"errno:{errno}"]
        self.assertEqual(self.tags(), tags)
        self.assertEqual((await self.send()).status_code, 201)


class TestNames(GCMTestCase):
    """spec/python-api 7"""

    def test_message(self):
        message = JSONMessage(["a"], "key", 5, True, {"x": "y"})
        self.assertEqual(message.registration_ids, ["a"])
        self.assertEqual(
            message.payload,
            {
                "registration_ids": ["a"],
                "collapse_key": "key",
                "time_to_live": 5,
                "delay_while_idle": False,
                "dry_run": True,
                "data": {"x": "y"},
            },
        )
        self.assertEqual(JSONMessage("a", None, 5, False, {}).registration_ids, ["a"])
        with self.assertRaises(RouterException):
            JSONMessage([], None, 5, False, {})

    async def test_result(self):
        self.bridge.configure({"unregistered": ["b"], "moved": {"c": "d"}})
        client = next(iter(self.router.gcmclients.values()))
        ids = ["a", "b", "c", ""]
        result = await client.send(JSONMessage(ids, None, 60, False, {}))
        self.assertEqual(set(result.success), {"a", "c"})
        self.assertEqual(result.canonicals, {"c": "d"})
        self.assertEqual(result.not_registered, ["b"])
        self.assertEqual(result.failed, {"": "MissingRegistration"})
        self.assertEqual((result.unavailable, result.retry_after), ([], None))
        self.assertIsNone(result.retry_message)
        message = JSONMessage(["a"], None, 60, False, {})
        self.bridge.script.add({"status": 503, "headers": {"Retry-After": "3"}})
        result = await client.send(message)
        self.assertEqual((result.retry_after, result.unavailable), (3, ["a"]))
        self.assertIs(result.retry_message, message)

    async def test_authentication_error(self):
        client = next(iter(self.router.gcmclients.values()))
        self.bridge.script.add({"status": 401})
        with self.assertRaises(GCMAuthenticationError):
            await client.send(JSONMessage(["a"], None, 60, False, {}))

    def test_router(self):
        self.assertEqual(gcm.GCMRouter.MAX_TTL, 2419200)
        self.assertEqual(set(self.router.senderIDs), {"12345"})
        self.assertEqual(set(self.router.gcmclients), {"12345"})
        self.assertEqual(self.router.router_conf["ttl"], 60)
