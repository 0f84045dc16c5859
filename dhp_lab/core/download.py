"""Fetch one file over HTTPS: resumed where it stopped, bounded in size, never left half-written under its own
name. Whoever fetches compares its sha256 before it gets that name.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

SCHEME = "https://"  # of every address, also of those that a site sends on to
CHUNK = 1 << 18  # bytes read from the network at once
TIMEOUT = 30  # seconds without a byte


class DownloadError(OSError):
    """A file that could not be fetched, or is not the original; the message names address and remedy."""


class _OnlySafe(urllib.request.HTTPRedirectHandler):
    """Follows a site to another address only where that one is encrypted too."""

    def redirect_request(self, request, stream, code, message, headers, address):
        _check_address(address)
        return super().redirect_request(request, stream, code, message, headers, address)


def _check_address(url: str) -> None:
    if not url.startswith(SCHEME):
        raise DownloadError(f"{url} is not an address that starts with {SCHEME}")


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(url: str, part: Path, *, limit: int) -> None:
    """Complete a file from an address, requesting only the bytes that are missing (RFC 9110, section 14).

    Args:
        url: where it comes from, https://.
        part: where it is written, and where an earlier, interrupted download lies.
        limit: the most bytes that the whole file may have.

    Raises:
        DownloadError: the address is of another kind, or the site sends on to such a one; the site cannot be
            reached, sends nothing for ``TIMEOUT`` seconds, breaks off, or sends more than the limit.
        OSError: the disk's own trouble.
    """
    _check_address(url)
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "dhp-lab"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (https only: checked above)
    try:
        with urllib.request.build_opener(_OnlySafe).open(request, timeout=TIMEOUT) as response:
            _append(response, part, have, limit)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send, or the part is of something else
            if error.headers.get("Content-Range") != f"bytes */{have}":
                part.unlink()
                fetch(url, part, limit=limit)
            return
        raise DownloadError(f"{url}: the site answers {error.code} {error.reason}; try again later") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(
            f"cannot reach {url} ({reason}); try again, it goes on where it stopped"
        ) from None


def _append(response: HTTPResponse, part: Path, have: int, limit: int) -> None:
    """Append (status 206) or write anew (status 200) what the site sends."""
    if response.status != 206:
        have = 0
    announced = response.headers.get("Content-Length")
    end = have + int(announced) if announced else None
    if end and end > limit:
        raise DownloadError(
            f"{response.url} would have {end} bytes, at most {limit} are expected; it is another file"
        )
    with open(part, "ab" if have else "wb") as stream:
        while chunk := response.read(min(CHUNK, limit + 1 - have)):
            stream.write(chunk)
            have += len(chunk)
    if have > limit:
        part.unlink()
        raise DownloadError(f"{response.url} has more than the {limit} bytes expected; it is another file")
    if end and have < end:
        raise DownloadError(
            f"{response.url} broke off after {have} of {end} bytes; try again, it goes on from there"
        )
