"""What the command line says when something fails: an `error:` line, a `hint:` line, and an exit code.

2 for what the caller wrote (options, configuration), 1 for what happened.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from quiver.proxy.store.failure import StoreError

from ..configuration.complaint import SettingsError
from .client import ClientError, RequestFailed
from .console import complain, fail


@contextmanager
def failures_explained(credential: str = "your key with --api-key or QUIVER_API_KEY") -> Iterator[None]:
    """Turn the errors a command can meet into `error:` and `hint:` lines and an exit code. `credential`: what opens the
    gateway to the command, and where it is given.
    """
    try:
        yield
    except SettingsError as error:
        *others, last = error.all
        for other in others:
            complain(other.message, other.hint)
        fail(last.message, last.hint, code=2)
    except StoreError as error:
        fail(error.message, error.hint)
    except ClientError as error:
        fail(error.message, error.hint)
    except RequestFailed as failure:
        fail(f"{failure.error.message} ({failure.error.code})", _advice(failure, credential))


def _advice(failure: RequestFailed, credential: str) -> str | None:
    """What to do about an error from the gateway."""
    match failure.error.code:
        case "invalid_api_key" | "admin_forbidden":
            return f"give {credential}"
        case "not_found" if failure.error.message.startswith("No server"):
            return "`quiver servers` lists what is registered"
        case "check_failed":
            return "the server has to run, at an address that the gateway's machine can reach"
        case "not_found" if "model" in failure.error.message:
            return "`quiver models list` shows the engine's models, `quiver models available` what can be loaded"
        case "not_found" if "request" in failure.error.message:
            return "`quiver history` lists the requests that are kept"
        case "not_found" if "key" in failure.error.message:
            return "`quiver keys list` shows the keys"
        case "configured_server":
            return "change it in the configuration file, or pause it with `quiver servers pause ID`"
        case "servers_paused":
            return "`quiver servers resume ID` lets one of them have requests again"
        case "model_not_found":
            return "`quiver models` lists what is on offer"
        case "insufficient_memory":
            return "`quiver models list` shows what takes memory; `--unload-first` and `--force` are at your own risk"
        case "model_loading":
            return "`quiver models unload` cancels a load"
        case "no_healthy_backend" | "model_not_loaded":
            return "`quiver status` says which server is ill and why"
        case _:
            return None
