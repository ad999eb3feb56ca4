"""spec/bridges 8, 10 and 11: ADM, against the stand-in."""

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from autopush.exceptions import InvalidConfig, RouterException
from autopush.router.adm import RENEW_EARLY, ADMAuthError, ADMClient, ADMRouter
from autopush.tests.router.bridge_support import (
    CHID,
    HEADERS,
    PATIENT,
    BridgeTestCase,
    NoAnswer,
    TokenFetches,
    options_of,
)

TOKEN = "amzn1.adm-registration.v3.that-nobody-may-see/with+odd=signs"
TOKEN_LIFETIME = 3600
"""Seconds, of the stand-in's access tokens."""
GONE = "User is no longer registered"


class ADMTestCase(BridgeTestCase):
    STAND_IN = "adm"
    APP = "admprofile"
    SECRETS = (TOKEN, "that-nobody-may-see", "automock-adm-secret")

    def make_router(self, **changes):
        profiles = options_of(self.bridge, "adm_creds")
        profiles["admprofile"].update({"timeout": PATIENT, **changes})
        return ADMRouter(self.conf, profiles, self.metrics)

    @property
    def http(self):
        return self.router.profiles["admprofile"]._client

    def user(self, **router_data):
        return {
            "uaid": "a0" * 16,
            "router_type": "adm",
            "router_data": {"token": TOKEN, "creds": {"profile": "admprofile"}, **router_data},
        }

    def deferred_send(self, **kwargs):
        return Deferred.fromCoroutine(self.send(**kwargs))


class TestRegister(ADMTestCase):
    def test_register(self):
        self.assert_registers({"creds": {"profile": "admprofile"}}, {})

    def test_refused(self):
        text = "connect info missing ADM Instance 'token'"
        self.assertEqual(self.refused({}), (text, 401, None))
        self.assertEqual(self.refused({"token": TOKEN}, "x"), ("Invalid ADM Profile", 400, 105))


class TestStart(ADMTestCase):
    """Section 2.4"""

    def test_incomplete_profile(self):
        for profile in ({}, {"client_id": "x"}, {"client_secret": "x"}, None):
            with self.assertRaises(OSError) as caught:
                ADMRouter(self.conf, {"p": profile}, self.metrics)
            text = "Profile info incomplete, missing id or secret"
            self.assertEqual(str(caught.exception), text)

    def test_bad_settings(self):
        for changes in ({"ttl": "x"}, {"ttl": -1}, {"timeout": []}, {"base_url": "ftp://x"}):
            with self.assertRaises(InvalidConfig):
                self.make_router(**changes)

    def test_log(self):
        self.assertEqual(self.logged("Starting ADM router..."), ["debug"])

    def test_default_url(self):
        client = ADMClient({"client_id": "a", "client_secret": "b"})
        self.assertEqual(client._base, "https://api.amazon.com")


class TestRequest(ADMTestCase):
    async def test_token(self):
        await self.send()
        (request,) = self.bridge.token_requests
        self.assertEqual(request["target"], "/auth/O2/token")
        self.assertEqual(
            request["form"],
            {
                "grant_type": "client_credentials",
                "scope": "messaging:push",
                "client_id": self.bridge.client_id,
                "client_secret": "automock-adm-secret",
            },
        )

    async def test_message(self):
        answer = await self.send(ttl=120)
        self.assertEqual((answer.status_code, answer.headers["TTL"]), (201, "120"))
        data = {"chid": CHID.replace("-", "")}
        self.assertEqual(self.last["payload"], {"data": data, "expiresAfter": 120})
        self.assertEqual(self.last["path"], f"/messaging/registrations/{TOKEN}/messages")
        self.assertIn("%2Fwith%2Bodd%3Dsigns/messages", self.last["target"])
        headers = self.last["headers"]
        self.assertEqual(headers["content-type"], "application/json")
        self.assertEqual(headers["accept"], "application/json")
        self.assertIn(headers["authorization"].removeprefix("Bearer "), self.bridge.access_tokens)

    async def test_encodings(self):
        """B18: aesgcm128 keys too"""
        await self.assert_encodings()

    async def test_topic(self):
        await self.send(topic="news")
        self.assertEqual(self.last["payload"]["consolidationKey"], "news")

    async def test_ttl_is_clamped(self):
        await self.assert_clamped("expiresAfter")

    async def test_minimum_ttl(self):
        """B19"""
        await self.replace_router(ttl=300)
        self.assertEqual((await self.send(ttl=10)).headers["TTL"], "300")

    async def test_longest(self):
        for encoding in HEADERS:
            self.assertEqual((await self.send(b"x" * 4096, encoding)).status_code, 201)

    async def test_metrics(self):
        """B18"""
        await self.assert_counted("adm")


class TestAnswers(ADMTestCase):
    """The table of section 8, and section 10"""

    def assert_tags(self, reason, error, errno):
        self.assertEqual(
            self.tags(), ["platform:adm", f"reason:{reason}", f"error:{error}", f"errno:{errno}"]
        )

    async def test_gone(self):
        for reason in ("Unregistered", "InvalidRegistrationId"):
            self.metrics.calls.clear()
            answer = await self.answered({"reason": reason})
            self.assertIsInstance(answer, RouterException)
            self.assert_answer(answer, 410, 106, GONE)
            self.assertEqual(self.metrics.calls, [])  # counted where the user is dropped

    async def test_new_id(self):
        """B5: only the token changes"""
        self.bridge.configure({"moved": {TOKEN: "new"}})
        answer = await self.send(user=self.user(key="k"))
        self.assertEqual(answer.status_code, 201)
        creds = {"profile": "admprofile"}
        self.assertEqual(answer.router_data, {"token": "new", "creds": creds, "key": "k"})

    async def test_same_id(self):
        self.assertIsNone((await self.send()).router_data)
        for content in ({}, [], {"registrationID": None}, {"registrationID": ""}):
            self.assertIsNone((await self.answered({"json": content})).router_data)

    async def test_other_reasons(self):
        """B18: Amazon's text isn't passed on"""
        for script in (
            {"reason": "InvalidData"},
            {"reason": "InvalidConsolidationKey"},
            {"reason": "InvalidExpiration"},
            {"reason": "InternalServerError"},
            {"status": 404, "body": f"no {TOKEN}"},
            {"status": 302, "body": ""},
        ):
            answer = await self.answered(script)
            self.assert_answer(answer, 500, None, "Server error")
            self.assert_kept(answer, "adm")
        self.assertEqual(self.logged("Could not send ADM message: "), ["error"] * 6)

    async def test_too_long(self):
        answer = await self.answered({"reason": "MessageTooLarge"})
        self.assertEqual((answer.status_code, answer.errno), (413, 104))

    async def test_retry(self):
        for reason in ("MaxRateExceeded", "ServiceUnavailable"):
            answer = await self.answered({"reason": reason})
            self.assert_retry(answer, 60)
            answer = await self.answered({"reason": reason, "headers": {"Retry-After": "11"}})
            self.assert_retry(answer, 11)
            self.assert_kept(answer, "adm")

    async def test_unknown_profile(self):
        for creds in ({"profile": "other"}, {}, None):
            answer = await self.send(user=self.user(creds=creds))
            self.assert_answer(answer, 500, None, "Server error")
            self.assert_kept(answer, "adm")
        self.assertEqual(self.logged("Unhandled exception in ADM Routing: "), ["error"] * 3)


class TestAccessToken(TokenFetches, ADMTestCase):
    """Cached; renewed before its end and when refused, one at a time"""

    async def test_lifetime_absent(self):
        """It counts as 0"""
        for _ in range(2):
            self.bridge.access_tokens["t"] = 1e12
            self.bridge.script.add({"on": "token", "json": {"access_token": "t"}})
            self.assertEqual((await self.send()).status_code, 201)
        self.assertEqual(len(self.bridge.token_requests), 2)
        del self.bridge.access_tokens["t"]

    async def test_renewed_before_its_end(self):
        tokens = self.router.profiles["admprofile"]._tokens
        clock = Clock()
        tokens._seconds = clock.seconds
        await self.send()
        first = self.last["headers"]["authorization"]
        clock.advance(TOKEN_LIFETIME - RENEW_EARLY)
        await self.send()
        self.assertEqual(self.last["headers"]["authorization"], first)
        await self.until(lambda: not tokens._fetching)
        await self.send()
        self.assertNotEqual(self.last["headers"]["authorization"], first)
        self.assertEqual(len(self.bridge.token_requests), 2)

    async def test_refused_token_is_replaced_and_the_message_sent_again(self):
        await self.send()
        self.bridge.access_tokens.clear()
        self.assertEqual((await self.send()).status_code, 201)
        self.assertEqual(len(self.bridge.token_requests), 2)
        self.assertEqual(len(self.bridge.messages), 3)

    async def test_refused_for_all_at_once(self):
        await self.send()
        self.bridge.access_tokens.clear()
        answers = await gatherResults([self.deferred_send() for _ in range(20)])
        self.assertEqual({answer.status_code for answer in answers}, {201})
        self.assertEqual(len(self.bridge.token_requests), 2)

    async def test_refused_twice(self):
        answer = await self.answered({"reason": "AccessTokenExpired", "times": 2})
        self.assert_answer(answer, 502, 901, "Server error")
        self.assertEqual(len(self.bridge.messages), 2)

    async def test_endpoint_refuses(self):
        script = {"on": "token", "status": 400, "json": {"error": "automock-adm-secret"}}
        answer = await self.answered(script)
        self.assert_answer(answer, 502, 901, "Server error")
        self.assert_kept(answer, "adm")
        tags = ["platform:adm", "reason:auth_failure", "error:502", "errno:901"]
        self.assertEqual(self.tags(), tags)
        self.assertEqual(self.logged("Could not get ADM Auth token "), ["error"])
        self.assertEqual(self.logged("ADM unable to authorize: "), ["error"])

    async def test_malformed_reply(self):
        for content in ({}, [], {"access_token": 5}, {"access_token": "a\nb"}):
            self.bridge.script.add({"on": "token", "json": content})
            answer = await self.send()
            self.assert_answer(answer, 500, None, "Server error")
            self.router.profiles["admprofile"]._tokens._error_until = 0
        self.assertEqual(self.logged("Unhandled exception in ADM Routing: "), ["error"] * 4)


class TestNoAnswer(NoAnswer, ADMTestCase):
    """B17: 903 for time-outs"""

    NAME = "ADM"
    EVENTS = 2

    async def gone(self, script, errno, reason):
        for on in ("message", "token"):
            self.metrics.calls.clear()
            send = self.given_up if reason == "timeout" else self.answered
            answer = await send({**script, "on": on})
            self.assert_answer(answer, 502, errno, "Server error")
            self.assert_kept(answer, "adm")
            tags = ["platform:adm", f"reason:{reason}", "error:502", f"errno:{errno}"]
            self.assertEqual(self.tags(), tags)
            self.bridge.reset()
            client = self.router.profiles["admprofile"]
            client._tokens.invalidate(str(client._tokens._value))
            client._tokens._error_until = 0


def test_names():
    """spec/python-api 7"""
    assert ADMClient.refresh_key and ADMClient.send
    assert issubclass(ADMAuthError, Exception)
