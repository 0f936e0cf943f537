"""Whether a file on the network is within reach, in seconds: downloaders try for minutes before they give up."""

import threading
import urllib.request

WAIT = 4.0  # seconds; with what is imported before, an answer takes less than ten


def why_unreachable(url: str, seconds: float = WAIT) -> str | None:
    """The reason why nothing can be downloaded from an address, or None.

    Args:
        url: of a file; its first bytes are asked for, through the proxy if the environment names one.
        seconds: after which no answer counts as none.
    """
    reason = [f"no answer within {seconds:g} s"]
    # Looking up a name cannot be given a time limit, so a thread does it and may be left behind.
    thread = threading.Thread(target=_ask, args=(url, seconds, reason), daemon=True)
    thread.start()
    thread.join(seconds)
    return reason[-1]


def _ask(url: str, seconds: float, reason: list[str | None]) -> None:
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            reason.append(None)
    except TimeoutError:
        pass
    except Exception as error:  # whatever it is, it says why
        reason.append(str(getattr(error, "reason", None) or error))
