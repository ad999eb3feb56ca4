"""Messages: ids, sort keys, rows and wire forms (spec/python-api 2.8)."""

from __future__ import annotations

import math
import time
import uuid
from decimal import Decimal

import pytest
from cryptography.fernet import Fernet, InvalidToken
from hypothesis import given, strategies as st

from autopush.exceptions import InvalidRequest, InvalidTokenException
from autopush.message import notification as module
from autopush.message.crypto_key import CryptoKey
from autopush.message.encoding import base64url_encode
from autopush.message.notification import WebPushNotification
from autopush.message.urgency import NORMAL

FERNET = Fernet(Fernet.generate_key())
UAID, CHID = uuid.UUID(int=2**127 + 5), uuid.UUID(int=77)
TIMESTAMP = 1_700_000_000_123_456

TOPICS = st.from_regex(r"[0-9A-Za-z\-_]{1,32}", fullmatch=True)
TIMESTAMPS = st.integers(10**15, 10**16 - 1)


def message(**changes):
    return WebPushNotification(**{"uaid": UAID, "channel_id": CHID, "ttl": 60, **changes})


def opened(notification) -> str:
    return FERNET.decrypt(notification.message_id.encode()).decode()


class TestMessageId:
    """spec/http-endpoint 7.1."""

    def test_topic(self):
        notification = message(topic="news")
        assert notification.generate_message_id(FERNET) == notification.message_id
        assert opened(notification) == f"01:{UAID.hex}:{CHID.hex}:news"
        assert notification.sortkey_timestamp is None

    def test_timestamped(self):
        notification = message(sortkey_timestamp=TIMESTAMP)
        notification.generate_message_id(FERNET)
        assert opened(notification) == f"02:{UAID.hex}:{CHID.hex}:{TIMESTAMP}"

    def test_timestamp_is_set_if_missing_and_kept(self, monkeypatch):
        times = iter([TIMESTAMP, TIMESTAMP + 1])
        monkeypatch.setattr(module, "ns_time", lambda: next(times))
        notification = message()
        notification.generate_message_id(FERNET)
        assert opened(notification).endswith(f":{TIMESTAMP}")
        assert notification.sort_key == f"02:{TIMESTAMP}:{CHID}"

    def test_legacy(self):
        notification = message(legacy=True)
        notification.generate_message_id(FERNET)
        assert opened(notification) == f"m:{UAID.hex}:{CHID.hex}"

    def test_is_update_id_version_and_location(self):
        notification = message()
        token = notification.generate_message_id(FERNET)
        assert token == notification.update_id == notification.version == notification.location

    def test_padding_is_kept(self):
        token = message(topic="a").generate_message_id(FERNET)
        assert len(token) % 4 == 0
        assert token.endswith("=")


class TestParseDecryptedMessageId:
    parse = staticmethod(WebPushNotification.parse_decrypted_message_id)

    def test_kinds(self):
        nothing = {"topic": None, "sortkey_timestamp": None}
        assert self.parse("01:u:c:t") == {**nothing, "uaid": "u", "chid": "c", "topic": "t"}
        assert self.parse("02:u:c:5") == {
            **nothing,
            "uaid": "u",
            "chid": "c",
            "sortkey_timestamp": 5,
        }
        assert self.parse("m:u:c") == {**nothing, "uaid": "u", "chid": "c"}

    @pytest.mark.parametrize("text", ["01:u:c", "01:u:c:t:x", "02:u:c", "m:u", "m:u:c:d", "", "x"])
    def test_number_of_parts(self, text):
        with pytest.raises(InvalidTokenException, match=r"^Incorrect number of token parts\.$"):
            self.parse(text)

    @pytest.mark.parametrize("text", ["r:u:c", "03:u:c", ":u:c"])
    def test_kind(self, text):
        with pytest.raises(InvalidTokenException, match=r"^Incorrect token kind\.$"):
            self.parse(text)

    @pytest.mark.parametrize("digits", ["", "x", "-5", "+5", " 5", "1_0", "5.0", "٣", "9" * 5000])
    def test_timestamp_must_be_a_number(self, digits):
        with pytest.raises(InvalidTokenException):
            self.parse(f"02:u:c:{digits}")


class TestFromMessageId:
    @given(st.uuids(), st.uuids(), TOPICS)
    def test_reverses_topic(self, uaid, chid, topic):
        sent = WebPushNotification(uaid, chid, 60, topic=topic)
        found = WebPushNotification.from_message_id(sent.generate_message_id(FERNET), FERNET)
        assert (found.uaid, found.channel_id, found.topic) == (uaid, chid, topic)
        assert found.sort_key == sent.sort_key
        assert found.update_id == sent.update_id

    @given(st.uuids(), st.uuids(), TIMESTAMPS)
    def test_reverses_timestamped(self, uaid, chid, timestamp):
        sent = WebPushNotification(uaid, chid, 60, sortkey_timestamp=timestamp)
        found = WebPushNotification.from_message_id(sent.generate_message_id(FERNET), FERNET)
        assert found.sort_key == sent.sort_key == f"02:{timestamp}:{chid}"
        assert found.message_id == sent.message_id

    def test_reverses_legacy(self):
        sent = message(legacy=True)
        found = WebPushNotification.from_message_id(sent.generate_message_id(FERNET), FERNET)
        assert found.legacy
        assert found.sort_key == sent.sort_key

    @pytest.mark.parametrize("text", ["", "junk", "é", "gAAAA", "\x00", "====", "!!!!"])
    def test_not_a_token(self, text):
        with pytest.raises(InvalidToken):
            WebPushNotification.from_message_id(text, FERNET)

    def test_stripped_padding_is_not_a_token(self):
        token = message(topic="a").generate_message_id(FERNET)
        with pytest.raises(InvalidToken):
            WebPushNotification.from_message_id(token.rstrip("="), FERNET)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            bytes(32),
            b"\xff\xfe",
            b"m:u:c",
            b"01:" + UAID.hex.encode() + b":zz:topic",
            f"02:{UAID.hex}:{CHID.hex}:soon".encode(),
            f"02:{UAID.hex}:{CHID.hex}".encode(),
        ],
    )
    def test_q12_malformed_content_is_one_error(self, content):
        with pytest.raises(InvalidTokenException):
            WebPushNotification.from_message_id(FERNET.encrypt(content).decode(), FERNET)

    @given(st.text(max_size=80))
    def test_any_content_is_a_message_or_one_error(self, text):
        with pytest.raises(InvalidTokenException):
            WebPushNotification.from_message_id(FERNET.encrypt(text.encode()).decode(), FERNET)


class TestSortKey:
    """spec/storage 4."""

    def test_kinds(self):
        assert message(topic="news").sort_key == f"01:{CHID}:news"
        assert message(sortkey_timestamp=5).sort_key == f"02:5:{CHID}"
        assert message(legacy=True, message_id="id").sort_key == f"{CHID}:id"

    def test_timestamp_is_set_if_missing_and_kept(self):
        notification = message()
        assert notification.sort_key == notification.sort_key
        assert notification.sort_key == f"02:{notification.sortkey_timestamp}:{CHID}"

    @given(st.uuids(), TOPICS)
    def test_parse_reverses_topic(self, chid, topic):
        key = WebPushNotification.parse_sort_key(message(channel_id=chid, topic=topic).sort_key)
        assert key == {
            "api_ver": "01",
            "channel_id": str(chid),
            "topic": topic,
            "message_id": None,
            "sortkey_timestamp": None,
        }

    @given(st.uuids(), TIMESTAMPS)
    def test_parse_reverses_timestamped(self, chid, timestamp):
        notification = message(channel_id=chid, sortkey_timestamp=timestamp)
        assert WebPushNotification.parse_sort_key(notification.sort_key) == {
            "api_ver": "02",
            "channel_id": str(chid),
            "topic": None,
            "message_id": None,
            "sortkey_timestamp": timestamp,
        }

    def test_parse_legacy(self):
        assert WebPushNotification.parse_sort_key(f"{CHID}:gAAA") == {
            "api_ver": "00",
            "channel_id": str(CHID),
            "topic": None,
            "message_id": "gAAA",
            "sortkey_timestamp": None,
        }

    @given(TIMESTAMPS, TIMESTAMPS, st.uuids(), st.uuids())
    def test_timestamped_sort_by_time(self, one, two, chid_one, chid_two):
        first = message(channel_id=chid_one, sortkey_timestamp=one).sort_key
        second = message(channel_id=chid_two, sortkey_timestamp=two).sort_key
        assert one == two or (first < second) == (one < two)

    @given(TOPICS, st.uuids(), TIMESTAMPS)
    def test_topics_sort_before_timestamped(self, topic, chid, timestamp):
        topic_key = message(channel_id=chid, topic=topic).sort_key
        assert " " < topic_key < "01;" < message(sortkey_timestamp=timestamp).sort_key < "02;"

    @pytest.mark.parametrize(
        "key",
        ["", " ", "01:a", "01:a:b:c", "02:5", "02:x:a", "02:-5:a", "02::a", "a", "a:b:c", "03:a:b"],
    )
    def test_any_other_shape_is_an_error(self, key):
        with pytest.raises(ValueError):
            WebPushNotification.parse_sort_key(key)


class TestFromMessageTable:
    """spec/storage 3.2."""

    row = {"chidmessageid": f"02:5:{CHID}", "updateid": "id", "ttl": 60, "timestamp": 9}

    def read(self, **changes):
        row = {k: v for k, v in {**self.row, **changes}.items() if v is not ...}
        return WebPushNotification.from_message_table(UAID, row)

    def test_timestamped(self):
        assert self.read(data="ZGF0YQ", headers={"encoding": "aesgcm"}) == message(
            data="ZGF0YQ",
            headers={"encoding": "aesgcm"},
            timestamp=9,
            sortkey_timestamp=5,
            source="Stored",
            message_id="id",
            update_id="id",
        )

    def test_topic(self):
        assert self.read(chidmessageid=f"01:{CHID}:news") == message(
            timestamp=9, topic="news", source="Stored", message_id="id", update_id="id"
        )

    def test_legacy_id_is_in_the_sort_key(self):
        found = self.read(chidmessageid=f"{CHID}:old", updateid="other")
        assert (found.message_id, found.update_id, found.legacy) == ("old", "other", True)
        assert found.sort_key == f"{CHID}:old"
        assert self.read(chidmessageid=f"{CHID}:old", updateid=...).update_id is None

    def test_uaid_as_text(self):
        assert WebPushNotification.from_message_table(UAID.hex, self.row).uaid == UAID

    def test_missing_ttl_is_0(self):
        assert self.read(ttl=None).ttl == 0
        assert self.read(ttl=...).ttl == 0

    def test_numbers_become_int(self):
        found = self.read(ttl=Decimal(60), timestamp=Decimal(9))
        assert type(found.ttl) is type(found.timestamp) is int

    @pytest.mark.parametrize(
        "changes",
        [
            {"chidmessageid": " "},
            {"chidmessageid": ...},
            {"chidmessageid": None},
            {"chidmessageid": "02:5:nope"},
            {"chidmessageid": f"02:x:{CHID}"},
            {"updateid": ...},
            {"timestamp": ...},
            {"timestamp": None},
            {"timestamp": "x"},
            {"ttl": "x"},
            {"ttl": float("inf")},
        ],
    )
    def test_anything_else_is_a_value_error(self, changes):
        with pytest.raises(ValueError):
            self.read(**changes)


class TestHeaders:
    """spec/http-endpoint 5.7."""

    def clean(self, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        notification = message(data="x", headers={"content-encoding": "aesgcm", **headers})
        notification.cleanup_headers()
        return notification.headers

    def test_only_what_was_sent_is_kept(self):
        assert self.clean(ttl="60", authorization="secret", crypto_key=None) == {
            "encoding": "aesgcm"
        }

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ("salt=asdf===", "salt=asdf"),
            ('keyid="p";salt="abc=="', "keyid=p;salt=abc"),
            ("salt=b==,salt=d=;rs=f", "salt=b,salt=d;rs=f"),
            ("keyid=a; salt=b, keyid=c; salt=d", "keyid=a; salt=b, keyid=c; salt=d"),
            ("salt=b=c", "salt=b=c"),
        ],
    )
    def test_quotes_and_padding_are_removed(self, sent, kept):
        headers = self.clean(encryption=sent, crypto_key=sent.replace("salt", "dh"))
        assert headers["encryption"] == kept
        assert headers["crypto_key"] == kept.replace("salt", "dh").replace(";rs=f", "")

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ("dh=x;p256ecdsa=y", "dh=x"),
            ("p256ecdsa=y;dh=x", "dh=x"),
            ("p256ecdsa=y; keyid=k; dh=x", "keyid=k; dh=x"),
            ("keyid=p256dh;dh=x,p256ecdsa=y", "keyid=p256dh;dh=x"),
            ("p256ecdsa=y, keyid=p256dh;dh=x", "keyid=p256dh;dh=x"),
            ("keyid=a;dh=x,keyid=v;p256ecdsa=y,keyid=b;dh=z", "keyid=a;dh=x,keyid=b;dh=z"),
            ("dh=x;;note=" + "n" * 5000, "dh=x"),
            ("p256ecdsa=y", None),
            ("keyid=k", None),
            ("nothing", None),
        ],
    )
    def test_only_what_decryption_needs_is_kept(self, sent, kept):
        headers = self.clean(crypto_key=sent, encryption_key=sent)
        assert headers.get("crypto_key") == kept
        assert headers.get("encryption_key") == kept
        salted = self.clean(encryption=sent.replace("dh=", "salt="))
        assert salted.get("encryption") == (kept and kept.replace("dh=", "salt="))

    @given(st.text("saltdhkeyrp256c=;, \"'", max_size=60))
    def test_what_a_user_agent_looks_for_is_found_as_before(self, header):
        """Firefox takes the first salt, and the keys by name."""
        kept = self.clean(encryption=header, crypto_key=header)
        for name, label in (("encryption", "salt"), ("crypto_key", "dh")):
            before = CryptoKey.parse_and_get_label(header.replace('"', ""), label)
            if before and before.strip("= "):
                after = CryptoKey.parse_and_get_label(kept[name], label)
                assert after.rstrip("= ") == before.rstrip("= ")

    def test_they_have_1_kib_together(self):
        """Counted is what is kept."""
        salt, dh = "s" * 400, "d" * (1024 - 400 - len("salt=dh="))
        noise = ";note=" + "n" * 9000
        kept = self.clean(encryption=f'salt="{salt}"{noise}', crypto_key=f"dh={dh}{noise}")
        assert sum(map(len, kept.values())) == 1024 + len("aesgcm")
        with pytest.raises(InvalidRequest, match="1024 bytes together") as caught:
            self.clean(encryption=f"salt={salt}", crypto_key=f"dh={dh}d")
        assert (caught.value.status_code, caught.value.errno) == (400, 110)

    def test_aes128gcm_has_none_of_them(self):
        """RFC 8188 2.1: all is in the body."""
        big = "keyid=" + "A" * 15000
        for headers in ({}, {"crypto_key": big, "encryption": big}, {"crypto_key": "p256ecdsa=x"}):
            assert self.clean(content_encoding="aes128gcm", **headers) == {"encoding": "aes128gcm"}

    def test_q11_encryption_key_is_left_alone(self):
        sent = 'keyid=p;dh="abc=="'
        assert self.clean(encryption_key=sent)["encryption_key"] == sent

    @pytest.mark.parametrize("header", ["encryption", "crypto_key"])
    def test_q12_non_ascii_is_400_110(self, header):
        with pytest.raises(InvalidRequest) as caught:
            self.clean(**{header: "salt=é"})
        assert (caught.value.status_code, caught.value.errno) == (400, 110)

    def test_q34_names_with_underscores_are_ignored(self):
        notification = message(
            data="x",
            headers={
                "content-encoding": "aesgcm",
                "content_encoding": "x",
                "crypto_key": "x",
                "encryption_key": "x",
            },
        )
        notification.cleanup_headers()
        assert notification.headers == {"encoding": "aesgcm"}


class TestFromRequest:
    headers = {"ttl": 60, "topic": None, "content-encoding": "aes128gcm", "crypto-key": 'dh="a="'}

    def build(self, body, **headers):
        return WebPushNotification.from_webpush_request_schema(
            {
                "subscription": {"uaid": UAID.hex, "chid": CHID.hex},
                "headers": {**self.headers, **headers},
                "body": body,
            },
            FERNET,
        )

    def test_with_data(self):
        built = self.build(b"\xfb\xff payload")
        assert (built.uaid, built.channel_id, built.ttl) == (UAID, CHID, 60)
        assert built.data == base64url_encode(b"\xfb\xff payload")
        assert built.headers == {"encoding": "aes128gcm"}
        assert built.source == "Direct"
        assert isinstance(built.timestamp, int)
        assert WebPushNotification.from_message_id(built.message_id, FERNET).uaid == UAID

    def test_encoded_body_is_taken_as_it_is(self):
        assert self.build("YWJj").data == "YWJj"

    @pytest.mark.parametrize("body", [b"", ""])
    def test_without_data_there_are_no_headers(self, body):
        built = self.build(body)
        assert built.data is None
        assert built.headers is None
        assert built.message_id

    def test_topic_and_missing_ttl(self):
        built = self.build(b"x", topic="news", ttl=None)
        assert (built.topic, built.ttl) == ("news", None)

    def test_uuids_are_taken_as_they_are(self):
        data = {
            "subscription": {"uaid": UAID, "chid": CHID},
            "headers": self.headers,
            "body": b"",
        }
        built = WebPushNotification.from_webpush_request_schema(data, FERNET, legacy=True)
        assert (built.uaid, built.legacy) == (UAID, True)


class TestWireForms:
    data = {"data": "ZGF0YQ", "headers": {"encoding": "aesgcm", "crypto-key": "x"}}

    def test_serialize(self):
        assert message(message_id="id", timestamp=9, topic="t", **self.data).serialize() == {
            "channelID": str(CHID),
            "version": "id",
            "ttl": 60,
            "topic": "t",
            "timestamp": 9,
            **self.data,
        }

    @pytest.mark.parametrize("data", [None, ""])
    def test_serialize_without_data(self, data):
        serialized = message(data=data, headers={"encoding": "x"}).serialize()
        assert not {"data", "headers"} & set(serialized)

    @given(
        st.uuids(),
        st.none() | st.integers(0, 5184000),
        st.none() | TOPICS,
        st.integers(0, 2**40),
        st.none() | st.text(min_size=1, max_size=10),
    )
    def test_from_serialized_reverses_serialize(self, chid, ttl, topic, timestamp, data):
        sent = message(
            channel_id=chid,
            ttl=ttl,
            topic=topic,
            timestamp=timestamp,
            data=data,
            headers={"encoding": "aesgcm"} if data else None,
            message_id="id",
            update_id="id",
        )
        assert WebPushNotification.from_serialized(UAID, sent.serialize()) == sent

    def test_from_serialized_is_lenient_about_what_may_be_missing(self):
        found = WebPushNotification.from_serialized(UAID.hex, {"channelID": CHID.hex, "version": 5})
        assert (found.channel_id, found.version, found.ttl) == (CHID, "5", None)
        assert isinstance(found.timestamp, int)
        assert found.source == "Direct"

    @pytest.mark.parametrize(
        "changes",
        [
            {"channelID": "nope"},
            {"channelID": 5},
            {"channelID": None},
            {"data": 5, "headers": {"encoding": "aesgcm"}},
            {"data": "x"},
            {"data": "x", "headers": []},
        ],
    )
    def test_from_serialized_refuses_what_can_not_be_sent(self, changes):
        with pytest.raises(ValueError):
            WebPushNotification.from_serialized(
                UAID, {"channelID": str(CHID), "version": "id", **changes}
            )

    @pytest.mark.parametrize(
        ("changes", "attribute", "value"),
        [
            ({"ttl": "60"}, "ttl", 60),
            ({"ttl": 1.5}, "ttl", 1),
            ({"ttl": -1}, "ttl", None),
            ({"ttl": 2**63}, "ttl", None),
            ({"ttl": [60]}, "ttl", None),
            ({"ttl": "soon"}, "ttl", None),
            ({"ttl": math.inf}, "ttl", None),
            ({"topic": 5}, "topic", "5"),
            ({"topic": True}, "topic", None),
            ({"topic": ["t"]}, "topic", None),
            ({"topic": "a:b"}, "topic", None),
            ({"topic": "t" * 33}, "topic", None),
            ({"timestamp": "1500000000"}, "timestamp", 1_500_000_000),
            ({"data": "x", "headers": {"encoding": "x", "salt": 5}}, "headers", {"encoding": "x"}),
            ({"headers": "x"}, "headers", None),
            ({"data": False}, "data", None),
        ],
    )
    def test_from_serialized_converts_or_ignores_what_is_of_the_wrong_type(
        self, changes, attribute, value
    ):
        """spec/websocket 19: "else 200"; and storage gets no row it could not read."""
        found = WebPushNotification.from_serialized(
            UAID, {"channelID": str(CHID), "version": "id", **changes}
        )
        assert getattr(found, attribute) == value
        assert WebPushNotification.parse_sort_key(found.sort_key)

    @pytest.mark.parametrize("timestamp", ["x", {}, -1, 2**63])
    def test_from_serialized_takes_now_for_a_timestamp_that_is_none(self, timestamp):
        found = WebPushNotification.from_serialized(
            UAID, {"channelID": str(CHID), "version": "id", "timestamp": timestamp}
        )
        assert abs(found.timestamp - time.time()) < 60

    def test_from_serialized_takes_an_empty_header_map(self):
        """spec/websocket 19: only data without a header map is refused."""
        found = WebPushNotification.from_serialized(
            UAID, {"channelID": str(CHID), "version": "id", "data": "x", "headers": {}}
        )
        assert found.websocket_format()["headers"] == {}

    def test_from_serialized_needs_a_version(self):
        with pytest.raises(ValueError):
            WebPushNotification.from_serialized(UAID, {"channelID": str(CHID)})

    def test_websocket_format(self):
        assert message(message_id="id", topic="t", **self.data).websocket_format() == {
            "messageType": "notification",
            "channelID": str(CHID),
            "version": "id",
            "data": "ZGF0YQ",
            "headers": {"encoding": "aesgcm", "crypto_key": "x"},
        }

    def test_websocket_format_without_data(self):
        assert message(message_id="id", headers={"encoding": "x"}).websocket_format() == {
            "messageType": "notification",
            "channelID": str(CHID),
            "version": "id",
        }


class TestValue:
    def test_expired_at_the_end_of_its_ttl(self):
        notification = message(ttl=10, timestamp=100)
        assert not notification.expired(109.9)
        assert notification.expired(110)

    def test_missing_ttl_expires_at_once(self):
        assert message(ttl=None, timestamp=100).expired(100)

    def test_expired_uses_the_present_by_default(self):
        assert message(ttl=10, timestamp=100).expired()
        assert not message(ttl=10).expired()

    def test_data_length_is_that_of_the_text(self):
        assert message(data="abcd").data_length == 4
        assert message().data_length == 0

    def test_compares_by_value_and_has_slots(self):
        assert message(timestamp=1) == message(timestamp=1)
        assert message(timestamp=1) != message(timestamp=2)
        with pytest.raises(AttributeError):
            message().unknown = 1


class TestUrgency:
    """spec/broadcasts 2"""

    @pytest.mark.parametrize("level", range(4))
    def test_urgency_is_told_to_other_nodes_unless_it_is_normal(self, level):
        sent = message(message_id="id", urgency=level)
        assert ("urgency" in sent.serialize()) == (level != NORMAL)
        assert WebPushNotification.from_serialized(UAID, sent.serialize()).urgency == level

    @pytest.mark.parametrize("value", [None, "", "soon", 3, ["low"], {}])
    def test_urgency_that_is_none_is_normal(self, value):
        data = {**message(message_id="id").serialize(), "urgency": value}
        assert WebPushNotification.from_serialized(UAID, data).urgency == NORMAL
