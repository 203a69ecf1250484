"""data/sprites/download.py, against a server on this machine: no test leaves it."""

import hashlib
import os
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data.sprites import compose, create_lpc_dataset, download
from utils.errors import UserError

CONTENT = {"body/a.png": bytes(range(256)) * 1000, "b.txt": b"authors"}
FIRST = "/body/a.png"


class Server(ThreadingHTTPServer):
    """Serves CONTENT. cut: how many answers break off. asked: path and range of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.asked, self.cut, self.ranges = dict(CONTENT), [], 0, True
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        wanted = self.headers["Range"]
        self.server.asked.append((self.path, wanted))
        body = self.server.content.get(self.path[1:])
        if body is None:
            return self.send_error(404)
        begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        begin = begin if self.server.ranges else 0
        if begin >= len(body):
            return self.send_error(416)
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        part = body[begin:]
        if self.server.cut:
            self.server.cut -= 1
            part = part[: len(part) // 2]
        self.wfile.write(part)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server, in place of the public repository; proxies of this machine are left out."""
    monkeypatch.setattr(download, "files", lambda: {p: sha(c) for p, c in CONTENT.items()})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sha(content):
    return hashlib.sha256(content).hexdigest()


def refusal(folder, address):
    with pytest.raises(UserError) as error:
        download.download(folder, address)
    line = str(error.value)
    assert "\n" not in line and f"--lpc CLONE, a clone of {compose.UPSTREAM}" in line
    return line


def there(folder):
    """{path: content} of the files in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_files_are_downloaded_once_and_again_if_damaged(server, tmp_path):
    download.download(tmp_path, server.address)
    assert there(tmp_path) == CONTENT and len(server.asked) == 2
    download.download(tmp_path, server.address)
    assert len(server.asked) == 2
    (tmp_path / "b.txt").write_bytes(b"changed")
    download.download(tmp_path, server.address)
    assert there(tmp_path) == CONTENT and server.asked[2:] == [("/b.txt", None)]


def test_a_cut_transfer_is_resumed_at_its_last_byte(server, tmp_path):
    server.cut = 2
    download.download(tmp_path, server.address)
    assert there(tmp_path) == CONTENT
    ranges = [wanted for path, wanted in server.asked if path == FIRST]
    assert ranges == [None, "bytes=128000-", "bytes=192000-"]


def test_a_network_that_fails_again_and_again_leaves_what_came_for_the_next_call(server, tmp_path):
    server.cut = 3
    line = refusal(tmp_path, server.address)
    assert "cut after 224,000 of 256,000 bytes" in line and "the same command resumes" in line
    assert there(tmp_path) == {"body/a.png.part": CONTENT["body/a.png"][:224000]}
    download.download(tmp_path, server.address)
    assert there(tmp_path) == CONTENT and server.asked[3] == (FIRST, "bytes=224000-")


def test_a_server_that_cannot_resume_sends_the_whole_file(server, tmp_path):
    server.cut, server.ranges = 1, False
    download.download(tmp_path, server.address)
    assert there(tmp_path) == CONTENT


@pytest.mark.parametrize("left", [CONTENT["body/a.png"], CONTENT["body/a.png"] + b"more", b"other"])
def test_what_an_earlier_call_left_is_completed_or_replaced(server, tmp_path, left):
    (tmp_path / "body").mkdir()
    (tmp_path / "body/a.png.part").write_bytes(left)
    download.download(tmp_path, server.address)
    assert there(tmp_path) == CONTENT


def test_another_checksum_is_refused_and_leaves_no_file(server, tmp_path):
    server.content["body/a.png"] = b"another picture"
    assert "checksum" in refusal(tmp_path, server.address)
    assert there(tmp_path) == {} and len(server.asked) == 1


def test_an_absent_file_is_named(server, tmp_path):
    del server.content["body/a.png"]
    line = refusal(tmp_path, server.address)
    assert f"{server.address}{FIRST}: the server answered 404 Not Found" in line
    assert there(tmp_path) == {}


def test_without_a_network_one_line_says_what_to_do(server, tmp_path, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nothing listens at this port
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        flags = ["--data_dir", str(tmp_path), "--url", address]
        assert create_lpc_dataset.main(flags) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "file/s" not in line and "?file" not in line]
    assert out == "" and len(lines) == 1
    assert "Connection refused" in lines[0] and "without a network, give --lpc CLONE" in lines[0]


def test_a_wrong_address_is_named(server, tmp_path):
    assert "cannot download nonsense/body/a.png (unknown url type" in refusal(tmp_path, "nonsense")


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to .*choose another --data_dir"):
        download.download(tmp_path / "file", server.address)


def test_the_script_downloads_the_art_and_composes_from_it(server, tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(create_lpc_dataset, "make", lambda *places: made.append(places))
    flags = ["--data_dir", str(tmp_path), "--url", f"{server.address}/"]
    assert create_lpc_dataset.main(flags) == 0
    folder = tmp_path / "sprites"
    assert made == [(folder / "lpc", folder)] and there(folder / "lpc") == CONTENT
    assert "AUTHORS.txt" in capsys.readouterr().out


def test_the_list_names_every_sheet_of_the_public_repository():
    listed = download.files()
    sheets = {compose.sheet_path(f, name) for f, names in compose.FACTORS.items() for name in names}
    assert set(listed) == sheets | {"AUTHORS.txt"} and len(sheets) == 22
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in listed.values())
    assert download.ADDRESS.startswith("https://raw.githubusercontent.com/jrconway3/Universal-LPC-")


def test_the_checksums_are_of_the_real_art():
    art = Path(os.environ.get("VDSM_REAL_DATA", "")) / "lpc"
    if not art.is_dir():
        pytest.skip("real LPC art not checked: VDSM_REAL_DATA does not name a folder with lpc/")
    for path, digest in download.files().items():
        assert sha((art / path).read_bytes()) == digest, path
