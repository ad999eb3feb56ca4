"""``python -m autopush.testing -- COMMAND``, with the tests of other languages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from autopush.testing import __main__ as program
from autopush.tests import TREE
from autopush.tests.docs.support import blocks
from autopush.tests.e2e.harness import eventually
from autopush.tests.senders.programs import PROGRAMS, built, environment

CLI = [sys.executable, "-m", "autopush.testing"]

WITHIN = 600
"""Seconds for a run: some commands compile."""


def start(*words, **kwargs):
    env = {**environment(), "PYTHONPATH": str(TREE)}
    return subprocess.Popen([*CLI, *words], env=env, stdout=subprocess.PIPE, text=True, **kwargs)


def run(*words, **kwargs):
    """Status and standard output."""
    process = start(*words, **kwargs)
    output, _ = process.communicate(timeout=WITHIN)
    return process.returncode, output


SHOW = (
    "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if 'AUTOPUSH' in k}))"
)


def test_the_environment():
    status, output = run("--", sys.executable, "-c", SHOW)
    assert status == 0
    found = json.loads(output)
    assert found.keys() == {
        "AUTOPUSH_URL",
        "AUTOPUSH_WEBSOCKET_URL",
        "AUTOPUSH_CONTROL_URL",
        "AUTOPUSH_FIREFOX_PREFERENCES",
    }
    preferences = json.loads(found["AUTOPUSH_FIREFOX_PREFERENCES"])
    assert preferences["dom.push.serverURL"] == found["AUTOPUSH_WEBSOCKET_URL"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 128 + 9)],
)
def test_ends_with_the_status_of_the_command(code, status):
    assert run("--", sys.executable, "-c", code)[0] == status


def test_no_such_command():
    assert run("--", "/no/such/command", stderr=subprocess.DEVNULL)[0] == 127


def test_a_service_that_does_not_start():
    done = run("--option=--nonsense", "--", "true", stderr=subprocess.DEVNULL)
    assert done[0] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_go_to_the_command(number):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    process = start("--", sys.executable, "-c", code)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(120) == 128 + number
    process.stdout.close()
    eventually(lambda: not psutil.pid_exists(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_command_starts_is_for_it(monkeypatch, number):
    begin = subprocess.Popen

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), number)
        return begin(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    facts = dict.fromkeys(("url", "websocket_url", "control_url"), "http://127.0.0.1:1/")
    facts |= {"firefox_preferences": {}, "certificate": None}
    assert program.run(["sleep", "600"], facts) == 128 + number


@pytest.fixture
def node_modules():
    """A folder in which Node.js finds web-push."""
    (program,) = [program for program in PROGRAMS if program.name == "node"]
    return built(program)


NODE_TEST = """
const assert = require('node:assert');
const test = require('node:test');
const webPush = require('web-push');
const service = process.env.AUTOPUSH_CONTROL_URL;

async function call(path, body) {
  const answer = await fetch(service + path, {
    method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body ?? {}),
  });
  const text = await answer.text();
  return {status: answer.status, body: text ? JSON.parse(text) : null};
}

test('the calls of web-push-testing', async () => {
  assert.equal((await call('/status')).status, 200);
  const vapid = webPush.generateVAPIDKeys();
  const options = {userVisibleOnly: true, applicationServerKey: vapid.publicKey};
  const {data: subscription} = (await call('/subscribe', options)).body;
  const vapidDetails = {subject: 'mailto:ops@example.com', ...vapid};
  for (const [text, contentEncoding] of [['one', 'aes128gcm'], ['two', 'aesgcm']]) {
    const how = {vapidDetails, contentEncoding};
    const sent = await webPush.sendNotification(subscription, text, how);
    assert.equal(sent.statusCode, 201);
  }
  const {clientHash} = subscription;
  const got = await call('/get-notifications', {clientHash});
  assert.deepEqual(got.body, {data: {messages: ['one', 'two']}});
  assert.equal((await call('/get-notifications', {clientHash: 'nobody'})).status, 400);
  assert.equal((await call('/expire-subscription/nobody')).status, 400);
  assert.equal((await call('/expire-subscription/' + clientHash)).status, 200);
  await assert.rejects(
    webPush.sendNotification(subscription, 'three', {vapidDetails}),
    (error) => error.statusCode === 410,
  );
});
"""


def test_what_users_of_web_push_testing_do(node_modules, tmp_path):
    (tmp_path / "push.test.js").write_text(NODE_TEST)
    (tmp_path / "node_modules").symlink_to(node_modules / "node_modules")
    status, output = run("--tls", "--", "node", "--test", "push.test.js", cwd=tmp_path)
    assert status == 0, output


def page(language):
    """The examples of the manual in a language."""
    return [block.text for block in blocks(f"code-block:: {language}") if block.page == "test"]


def test_the_manuals_example_for_node(node_modules, tmp_path):
    (code,) = page("javascript")
    (tmp_path / "push.test.js").write_text(code)
    (tmp_path / "node_modules").symlink_to(node_modules / "node_modules")
    status, output = run("--tls", "--", "node", "--test", "push.test.js", cwd=tmp_path)
    assert status == 0, output


def test_the_manuals_example_for_go(tmp_path):
    (program,) = [program for program in PROGRAMS if program.name == "go"]
    folder = built(program)
    for name in ("go.mod", "go.sum"):
        shutil.copy(folder / name, tmp_path)
    (code,) = page("go")
    (tmp_path / "push_test.go").write_text(code)
    status, output = run("--", "go", "test", "-mod=mod", "-count=1", "./...", cwd=tmp_path)
    assert status == 0, output
