"""Whether a file on the network is within reach, in seconds: downloaders try for minutes before they give up."""

import threading
import urllib.request

# Seconds. The command takes three of a processor's time before it asks, or six of a clock where two commands share the
# processor: with both an answer takes less than ten.
WAIT = 3.0


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
