"""Servers that end with the process that started them, even after ``kill -9`` or a hang-up."""

from __future__ import annotations

# For `sh -c`, with the command as arguments, in a session of its own and with a pipe as standard
# input. The pipe closes when its writer ends: then the group of the server gets SIGTERM. SIGTERM to
# the group ends the server as well, and this shell after it, with its exit code.
_SCRIPT = """
exec 3<&0 </dev/null
trap : TERM
"$@" 3<&- & server=$!
{ trap - TERM; read -r _ <&3; kill -s TERM -- -$$; } & exec 3<&-
while wait "$server"; code=$?; kill -0 "$server" 2>/dev/null; do :; done
trap '' TERM
kill -s TERM -- -$$
exit $code
"""


def guarded(*command: str, private: bool = False) -> list[str]:
    """The command of a server, for ``Popen(stdin=PIPE, start_new_session=True)``.

    Closing the pipe ends the server.

    Args:
        private: files of the server are readable by their owner only.
    """
    return ["/bin/sh", "-c", ("umask 077" if private else "") + _SCRIPT, "sh", *command]
