# SPDX-License-Identifier: MIT
"""A headless Chromium, driven by chromedriver's HTTP protocol (W3C WebDriver)."""
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request

from e2e import Skip, temp_dir, wait_until, work


class Browser:
    """`with Browser() as browser`: pages of this machine, what they say and what they ask for."""

    def __init__(self):
        driver, chromium = shutil.which('chromedriver'), shutil.which('chromium')
        if driver is None or chromium is None:
            raise Skip('chromium and chromium-driver are not installed')
        self._home = temp_dir() / 'browser'
        self._home.mkdir()
        log = work('chromedriver.log')
        # A process group of its own: whatever it starts is ended with it.
        self._process = subprocess.Popen(
            [driver, '--port=0', f'--log-path={log}'], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
            env={**os.environ, **dict.fromkeys(
                ('HOME', 'TMPDIR', 'XDG_RUNTIME_DIR'), str(self._home))})
        try:
            self._session = ''
            self._port = self._find_port()
            try:
                self._begin(chromium)
            except AssertionError as err:
                raise Skip(f'chromium does not start here: {str(err)[:200]!r}') from None
        except BaseException:
            self.close()
            raise

    def _find_port(self):
        for line in self._process.stdout:
            words = line.rstrip('.\n').split(' on port ')
            if len(words) == 2 and words[1].isdigit() and words[1] != '0':
                return int(words[1])
        raise AssertionError('chromedriver has ended')

    def _call(self, method, path, body=None):
        request = urllib.request.Request(
            f'http://127.0.0.1:{self._port}{self._session}{path}', method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={'Content-Type': 'application/json'})
        # Not by a proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)['value']
        except urllib.error.HTTPError as err:
            raise AssertionError(f'{path}: {err.read().decode()[:500]}') from None

    def _begin(self, chromium):
        arguments = ['--headless=new', '--disable-gpu', '--no-first-run',
                     f'--user-data-dir={self._home}/profile']
        if os.geteuid() == 0:
            arguments.append('--no-sandbox')
        answer = self._call('POST', '/session', {'capabilities': {'alwaysMatch': {
            'browserName': 'chrome',
            'goog:loggingPrefs': {'browser': 'ALL', 'performance': 'ALL'},
            'goog:chromeOptions': {'binary': chromium, 'args': arguments}}}})
        self._session = f'/session/{answer["sessionId"]}'
        # Its own first page asks for much, none of which counts.
        self._call('POST', '/url', {'url': 'about:blank'})
        self.requests()
        self.complaints()

    def command(self, name, **parameters):
        """A command of the DevTools protocol."""
        return self._call('POST', '/goog/cdp/execute', {'cmd': name, 'params': parameters})

    def look(self, width, scheme='light'):
        """From now on the window is that wide, and the user prefers that scheme."""
        self.command('Emulation.setDeviceMetricsOverride', width=width, height=900,
                     deviceScaleFactor=1, mobile=width < 600)
        self.command('Emulation.setEmulatedMedia',
                     features=[{'name': 'prefers-color-scheme', 'value': scheme}])

    def open(self, path):
        self._call('POST', '/url', {'url': path.as_uri()})

    def run(self, script):
        """What the body of a function gives that is called in the page."""
        return self._call('POST', '/execute/sync', {'script': script, 'args': []})

    def wait(self, script, what):
        return wait_until(lambda: self.run(script), what, 30, 0.1)

    def complaints(self):
        """What the page's console has said since the last time."""
        return [entry['message'] for entry in self._call('POST', '/se/log', {'type': 'browser'})]

    def requests(self):
        """All that pages have asked for since the last time."""
        entries = (json.loads(entry['message'])['message'] for entry in
                   self._call('POST', '/se/log', {'type': 'performance'}))
        return [entry['params']['request']['url'] for entry in entries
                if entry['method'] == 'Network.requestWillBeSent']

    def close(self):
        if self._session:
            try:
                self._call('DELETE', '')
            except (AssertionError, OSError):
                pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._process.stdout.close()
        # What it started may still be writing there for a moment.
        for _ in range(50):
            shutil.rmtree(self._home, ignore_errors=True)
            if not self._home.exists():
                break
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
