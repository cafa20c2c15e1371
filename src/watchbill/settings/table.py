"""Every setting in one table, which the documentation shows, and variables that look like ours and are not."""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping

from watchbill.settings.agent import AgentSettings
from watchbill.settings.prometheus import PROMETHEUS_VARIABLES
from watchbill.settings.server import ServerSettings
from watchbill.settings.variables import settings_of, shown_default, words_for

CLIENT_VARIABLES = {
    "WATCHBILL_URL": "address of the server that commands ask",
    "WATCHBILL_CLIENT_ID": "service account that commands log in as",
    "WATCHBILL_CLIENT_SECRET": "its secret",
    "WATCHBILL_CLIENT_SECRET_FILE": "file with its secret",
    "WATCHBILL_CREDENTIALS": "file with these three",
    "WATCHBILL_CA_FILE": "PEM file of authorities that commands and agents trust in addition to the system's",
    "WATCHBILL_LOGIN_FILE": "file that `watchbill login` keeps its login in",
    "WATCHBILL_CONTEXT": "context that commands use",
    "WATCHBILL_CONTEXTS": "file with the contexts",
    "WATCHBILL_PROJECT": "project that commands narrow to",
    "WATCHBILL_TIME_ZONE": "time zone that commands show times in: local, UTC or a name",
    "WATCHBILL_SERVER_URL": "address of the server that an agent reports to",
    "WATCHBILL_AGENT_CREDENTIAL": "file with an agent's credential",
    "WATCHBILL_LOG_LEVEL": "debug, info, warning or error",
    "WATCHBILL_DEBUG": "where it is set, commands show where an error came from",
}
"""What the command line reads by itself."""
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_[0-9]+_(TCP|UDP)")


def settings_table() -> Iterator[tuple[str, str, str, str]]:
    """Every variable: name, purpose, what it may be, default. The documentation's table is made of it."""
    for owner in (ServerSettings, AgentSettings):
        for spec, hint, setting in settings_of(owner):
            default = spec.default if spec.default is not dataclasses.MISSING else ""
            yield setting.variable, setting.purpose, words_for(hint), shown_default(default)
    for variable, purpose in (PROMETHEUS_VARIABLES | CLIENT_VARIABLES).items():
        yield variable, purpose, "text", ""


def unknown_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that begin like ours and are not, each with the one that was probably meant, or "".

    What Kubernetes puts into every pod beside a Service of our name is left out.
    """
    known = {variable for variable, *_ in settings_table()}
    for name in sorted(environ):
        is_ours = name.startswith("WATCHBILL_") and not name.startswith("WATCHBILL_TEST_")
        if is_ours and name not in known and not _SERVICE_LINK.search(name):
            yield name, next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), "")
