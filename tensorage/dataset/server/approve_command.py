"""The command that lets a worker in: asks the server on this machine, with its owner token.

Exit codes: 0 done; 1 it failed; 2 something that the user can put right; 130 interrupted.
"""

from __future__ import annotations

import json
import ssl
from typing import Annotated, Any

import httpx
import typer

from ... import config
from ...errors import TensorageError, UsageError
from ...transport.refusals import one_line
from ..options import DEFAULT_HOME, AsJson, DatasetHome
from .state import State, running

app = typer.Typer(add_completion=False)


@app.command()
def approve(
    user_code: Annotated[str, typer.Argument(metavar="CODE", help="What the worker shows, XXXX-XXXX.")],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="ID", help="Into which.", show_default="the only one running"),
    ] = None,
    home: DatasetHome = DEFAULT_HOME,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Let a worker in who asked to join, by the code that it shows.

    Example: dataset approve ABCD-2345
    """
    state = _choose(running(home.expanduser().absolute()), dataset)
    answer = _ask(state, user_code)
    if as_json:
        print(json.dumps({"dataset": state.id, "code": user_code.strip().upper(), **answer}))
        return
    worker = one_line(str(answer.get("worker", "")), 80)
    typer.echo(
        f'Approved {user_code.strip().upper()} into "{state.id}"' + (f", for {worker!r}" if worker else "")
    )


def _choose(states: list[State], id: str | None) -> State:
    if id is not None:
        states = [state for state in states if state.id == id]
    if not states:
        what = "no dataset is" if id is None else f"dataset {id[:80]!r} is not"
        raise UsageError(f"{what} running here", remedy="Publish it first, or name another --home")
    if len(states) > 1:
        raise UsageError(
            f"multiple datasets running: {', '.join(state.id for state in states)}",
            remedy="Pass --dataset <id>",
        )
    return states[0]


def _ask(state: State, user_code: str) -> dict[str, Any]:
    """Approve a code at a server of this machine.

    Raises:
        UsageError: the code is none, has expired, or was used.
        TensorageError: the server does not answer.
    """
    try:
        with httpx.Client(verify=_trusting(state), trust_env=False, timeout=10) as client:
            reply = client.post(
                f"{state.local_addr}/auth/device/approve",
                json={"user_code": user_code},
                headers={"Authorization": f"Bearer {state.owner_token}"},
            )
            answer = reply.json()
    except (httpx.HTTPError, ValueError) as error:
        raise TensorageError(
            f"the server of {state.id} at {state.local_addr} does not answer: {error}",
            remedy="See what it says, or publish again",
        ) from error
    if not isinstance(answer, dict):
        raise TensorageError(f"the server of {state.id} at {state.local_addr} does not answer as it should")
    if reply.status_code != 200:
        raise UsageError(one_line(str(answer.get("message", reply.status_code))))
    return answer


def _trusting(state: State) -> ssl.SSLContext:
    """TLS that trusts the certificate of our own server and no other, whatever name it is for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if state.certificate is not None:
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=state.certificate)
    return context
