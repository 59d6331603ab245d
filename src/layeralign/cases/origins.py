"""Where public benchmarks are fetched from: GitHub, Hugging Face's hub, archives; one file at a time."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Protocol
from urllib.parse import quote, urlsplit

import httpx

from layeralign._util.retry import LATER, Retry, retry, seconds
from layeralign.errors import LayeralignError

GITHUB = "https://raw.githubusercontent.com"
S3 = "https://s3.amazonaws.com"
ATTEMPTS = 6
BUDGET = 300.0
"""Seconds after which no further attempt at a file begins."""
SLOWEST = 20.0
"""Longest pause between attempts, in seconds; a server's `Retry-After` goes before it."""
TIMEOUT = 30.0
"""Seconds that a server may be silent."""
_CHUNK = 2**20


class Missing(LayeralignError):
    """The place has no such file."""


class Origin(Protocol):
    """A public place that has a benchmark's files, in the layout in which they are kept here."""

    def url(self, revision: str | None, path: str) -> str:
        """Where the file is."""

    def fetch(self, revision: str | None, path: str, draft: Path, most: int) -> None:
        """Write the file to `draft`.

        Raises:
            Missing: it is not there.
            LayeralignError: it cannot be had, or is larger than `most` bytes.
        """


@dataclass(frozen=True)
class GitHub:
    """A repository, as `owner/name`."""

    repo: str

    def url(self, revision: str | None, path: str) -> str:
        """Of the raw file."""
        return f"{GITHUB}/{self.repo}/{revision}/{quote(path)}"

    def fetch(self, revision: str | None, path: str, draft: Path, most: int) -> None:
        """See `Origin.fetch`."""
        _download(self.url(revision, path), draft, most)


@dataclass(frozen=True)
class Archives:
    """ZIP archives in a folder of Amazon's S3; `archives` says in which of them each file is."""

    folder: str
    archives: Mapping[str, str]

    def url(self, revision: str | None, path: str) -> str:
        """Of the archive; there are no revisions."""
        return f"{S3}/{self.folder}/{self.archives[path]}"

    def fetch(self, revision: str | None, path: str, draft: Path, most: int) -> None:
        """See `Origin.fetch`."""
        url = self.url(revision, path)
        packed = draft.with_name(f"{draft.name}.zip")
        try:
            _download(url, packed, most)
            with zipfile.ZipFile(packed) as archive, archive.open(path) as inside, draft.open("wb") as stream:
                while part := inside.read(_CHUNK):
                    _write(part, stream, url, most)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            KeyError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise LayeralignError(f"{url}: is no ZIP archive with {path}") from error
        finally:
            packed.unlink(missing_ok=True)


@dataclass(frozen=True)
class Hub:
    """A data set of Hugging Face's hub, as `owner/name`; `HF_TOKEN` and `HF_ENDPOINT` are the hub's own."""

    repo: str

    def url(self, revision: str | None, path: str) -> str:
        """Of the file, as the hub resolves it."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, path, repo_type="dataset", revision=revision)

    def fetch(self, revision: str | None, path: str, draft: Path, most: int) -> None:
        """See `Origin.fetch`."""
        url = self.url(revision, path)
        _patiently(url, lambda: self._once(url, revision, path, draft, most))

    def _once(self, url: str, revision: str | None, path: str, draft: Path, most: int) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download

        try:
            found = get_hf_file_metadata(url)
            if found.commit_hash != revision:
                raise LayeralignError(f"{url}: is given as revision {found.commit_hash}; expected {revision}")
            if found.size is None or found.size > most:
                raise LayeralignError(f"{url}: has {found.size} bytes; at most {most:,} are taken")
            with TemporaryDirectory(dir=draft.parent) as work, _no_bars():
                got = hf_hub_download(self.repo, path, repo_type="dataset", revision=revision, local_dir=work)
                Path(got).replace(draft)
        except LayeralignError:
            raise
        except Exception as error:  # the hub client raises many kinds
            raise self._told(error, url) from error

    def _told(self, error: Exception, url: str) -> Exception:
        """What a failure means to a user, or that it may be over when it is tried again."""
        from huggingface_hub import errors

        page = f"https://huggingface.co/datasets/{self.repo}"
        means = {
            errors.GatedRepoError: f"access is gated; accept the terms at {page} and set HF_TOKEN",
            errors.RevisionNotFoundError: "the data set has no such revision",
            errors.RepositoryNotFoundError: f"no such data set, or one that wants HF_TOKEN; see {page}",
            errors.OfflineModeIsEnabled: "the hub is switched off by HF_HUB_OFFLINE",
        }  # a gated one is one that was not found, too
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return Missing(f"{url}: the data set has no such file")
        for kind, says in means.items():
            if isinstance(error, kind):
                return LayeralignError(f"{url}: {says}")
        if isinstance(error, errors.HfHubHTTPError):
            status = error.response.status_code
            says = f"the hub answered {status}"
            return Retry(says) if status in LATER else LayeralignError(f"{url}: {says}; see {page}")
        return Retry(f"the download failed ({type(error).__name__})")


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the hub client's own bars, beside which ours would be torn."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def _download(url: str, draft: Path, most: int) -> None:
    _patiently(url, lambda: _once(url, draft, most))


def _patiently(url: str, once: Callable[[], None]) -> None:
    try:
        retry(once, attempts=ATTEMPTS, budget=BUDGET, slowest=SLOWEST)
    except Retry as given_up:
        raise LayeralignError(
            f"{url}: {given_up.why}, {ATTEMPTS} times or for {BUDGET:.0f} s; repeat the command later "
            f"to resume"
        ) from given_up.__cause__


def _once(url: str, draft: Path, most: int) -> None:
    try:
        with _browser(urlsplit(url).scheme).stream("GET", url) as answer, draft.open("wb") as stream:
            _check(answer, url, most)
            for part in answer.iter_bytes():
                _write(part, stream, url, most)
    except httpx.TimeoutException:
        raise Retry("timed out") from None
    except httpx.RequestError as error:
        raise Retry(f"the connection failed ({type(error).__name__})") from None


@cache
def _browser(scheme: str) -> httpx.Client:
    """One client for all, so that connections are shared; no redirect leads from https to anything else."""

    def insist(request: httpx.Request) -> None:
        if request.url.scheme != scheme:
            raise LayeralignError(
                f"{request.url}: is where a redirect leads, and not {scheme}; it is refused"
            )

    return httpx.Client(
        headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT, follow_redirects=True, max_redirects=5,
        event_hooks={"request": [insist]},
    )  # fmt: skip


def _check(answer: httpx.Response, url: str, most: int) -> None:
    status = answer.status_code
    if status in LATER:
        raise Retry(f"the server answered {status}", seconds(answer.headers.get("Retry-After")))
    if status in (404, 410):
        raise Missing(f"{url}: is not there (the server answered {status})")
    if status != 200:
        raise LayeralignError(f"{url}: is not given (the server answered {status})")
    length = answer.headers.get("Content-Length")
    if length is None and "chunked" not in answer.headers.get("Transfer-Encoding", ""):
        raise LayeralignError(f"{url}: comes without its length, so that half of it could pass for the whole")
    if length is not None and int(length) > most:
        raise LayeralignError(f"{url}: has {int(length):,} bytes; at most {most:,} are taken")


def _write(part: bytes, stream: IO[bytes], url: str, most: int) -> None:
    if stream.tell() + len(part) > most:
        raise LayeralignError(f"{url}: has more than the {most:,} bytes that are taken")
    stream.write(part)
