"""Fetch one file over HTTP: resumed where it stopped, bounded in size, never left half-written under its own
name.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

CHUNK = 1 << 18  # bytes read from the network at once
TIMEOUT = 30  # seconds without a byte


class DownloadError(OSError):
    """A file that could not be fetched, or is not the original; the message names address and remedy."""


def fetch(url: str, part: Path, *, limit: int) -> None:
    """Complete a file from an address, requesting only the bytes that are missing (RFC 9110, section 14).

    Args:
        url: where it comes from, https:// or http://.
        part: where it is written, and where an earlier, interrupted download lies.
        limit: the most bytes that the whole file may have.

    Raises:
        DownloadError: the address is of another kind, the site cannot be reached, sends nothing for
            ``TIMEOUT`` seconds, breaks off, or sends more than the limit.
        OSError: the disk's own trouble.
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url} is not an address that starts with https:// or http://")
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "dhp-lab"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (http and https only: checked above)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310 (likewise)
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
