"""spec/http-endpoint 7: message ids and ``DELETE /m``."""

import pytest
from twisted.logger import capturedLogs

from autopush.exceptions import StoreBusy, StoreError
from autopush.tests.web.support import AES128GCM, CHID, ORIGIN, UAID, Endpoint, error, refused

CHID_HEX = CHID.replace("-", "")
INVALID = (400, None, "Invalid message ID")


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    endpoint.add_user(connected=False)
    return endpoint


def send(endpoint, **headers):
    """Store a message; the path of its resource."""
    answer = endpoint.push(b"x", **AES128GCM, **headers)
    return answer.headers["location"].removeprefix(ORIGIN)


def sealed(endpoint, text):
    return "/m/" + endpoint.conf.fernet.encrypt(text.encode()).decode()


def test_delete(endpoint):
    path = send(endpoint)
    assert len(endpoint.messages()) == 1
    answer = endpoint.request("DELETE", path)
    assert (answer.status, answer.body) == (204, b"")
    assert endpoint.messages() == []


def test_headers(endpoint):
    headers = endpoint.request("DELETE", send(endpoint)).headers
    assert headers["access-control-allow-methods"] == "DELETE"
    assert headers["access-control-allow-headers"] == ""
    assert headers["access-control-expose-headers"] == "location,retry-after"
    assert "content-length" not in headers


def test_delete_twice(endpoint):
    """Q22"""
    path = send(endpoint)
    assert endpoint.request("DELETE", path).status == 204
    assert endpoint.request("DELETE", path).status == 204


def test_topic(endpoint):
    path = send(endpoint, topic="t")
    endpoint.request("DELETE", path)
    assert endpoint.messages() == []


def test_replaced_topic_message_stays(endpoint):
    old, new = send(endpoint, topic="t"), send(endpoint, topic="t")
    assert endpoint.request("DELETE", old).status == 204
    assert [row.update_id for row in endpoint.messages()] == [new.removeprefix("/m/")]


def test_escaped_padding(endpoint):
    path = send(endpoint, topic="ab")
    assert path.endswith("=")
    assert endpoint.request("DELETE", path.replace("=", "%3D")).status == 204
    assert endpoint.messages() == []


def test_month_of_the_user(endpoint):
    """Q21"""
    old = endpoint.month
    path = send(endpoint)
    endpoint.store.months.current = "message_2027_01"
    endpoint.request("DELETE", path)
    assert endpoint.messages(month=old) == []


def test_current_month_for_unknown_users(endpoint):
    path = send(endpoint)
    endpoint.store.users.clear()
    assert endpoint.request("DELETE", path).status == 204
    assert endpoint.messages() == []


@pytest.mark.parametrize(
    "text",
    [f"02:{UAID}:{CHID_HEX}:1500000000000000", f"01:{UAID}:{CHID_HEX}:t", f"m:{UAID}:{CHID_HEX}"],
)
def test_ids_of_all_kinds(endpoint, text):
    assert endpoint.request("DELETE", sealed(endpoint, text)).status == 204


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        f"02:{UAID}:{CHID_HEX}",
        f"02:{UAID}:{CHID_HEX}:1:2",
        f"02:{UAID}:{CHID_HEX}:soon",
        f"02:{UAID}:nope:1",
        f"01:nope:{CHID_HEX}:t",
        f"03:{UAID}:{CHID_HEX}",
        f"m:{UAID}",
    ],
)
def test_sealed_nonsense(endpoint, text):
    """Step 3; where the original failed in step 4: Q12"""
    assert refused(endpoint.request("DELETE", sealed(endpoint, text))) == INVALID


@pytest.mark.parametrize("message_id", ["x", "gAAAAA", "%C3%A9", "a b", "=" * 8])
def test_unsealed_nonsense(endpoint, message_id):
    path = f"/m/{message_id}".replace(" ", "%20")
    assert refused(endpoint.request("DELETE", path)) == INVALID


def test_stripped_padding(endpoint):
    path = send(endpoint, topic="ab")
    assert path.endswith("=")
    assert refused(endpoint.request("DELETE", path.rstrip("="))) == INVALID


@pytest.mark.parametrize("operation", ["get_user", "delete_message"])
@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (StoreBusy(), (503, 201, "Please slow message send rate")),
        (StoreError(), (503, 202, "Unexpected Error")),
    ],
)
def test_store_fails(endpoint, operation, exc, expected):
    path = send(endpoint)
    endpoint.store.fail(operation, exc)
    assert error(endpoint.request("DELETE", path)) == expected


def test_event(endpoint):
    path = send(endpoint)
    with capturedLogs() as events:
        endpoint.request("DELETE", path)
    event = next(e for e in events if e["log_format"] == "Message Deleted")
    assert event["status_code"] == 204
    assert event["uri"] == "/m/..."
    assert event["request_id"]
