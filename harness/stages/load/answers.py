"""Answers: HTTP of the load generator, read as it comes in.

In: the pieces that come from a socket. Out: `Answer`, whole or not yet; `SignedAnswer` and `TimedAnswer`, of which one
header is read too. Most answers have nothing read but their status and their body, for everything else costs time that
the next request waits for.
"""

from typing import ClassVar

from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from harness.process import SERVER_HEADER
from harness.records.load import NO_STATUS
from harness.stages.load.timing import TIMING_HEADER

_SAID_MAX = 1024
"""Characters of a header: no more is kept than this and one more piece, whatever a stranger sends."""


class Answer(HTTPResponseParser):
    """One HTTP answer as it comes in; the parser calls the methods that begin with an underscore."""

    def __init__(self) -> None:
        super().__init__()
        self.body = bytearray()
        self.complete = False
        self.status = NO_STATUS
        self.reusable = False
        """The connection may carry another exchange."""

    said = ""
    """The header that is read, where one is; empty where the server does not say it."""

    def read(self, data: bytes) -> None:
        """Take what came from the socket, empty at its end. Raises HTTPParseError on what is no HTTP answer."""
        try:
            self.feed(data)
        except HTTPParseError:
            # What follows a whole answer spoils the connection, not the answer.
            self.reusable = False
            if not self.complete:
                raise

    def _on_message_begin(self) -> None:
        self.reusable = False  # after a whole answer: a second one to the same request

    def _on_body(self, part: bytearray) -> None:
        if not self.complete:
            self.body += part

    def _on_message_complete(self) -> None:
        status = self.get_code()
        if self.complete or status < 200:  # an interim answer (1xx) is followed by the real one
            return
        self.complete, self.status, self.reusable = True, status, self.should_keep_alive()

    def _on_headers_complete(self) -> bool:
        return False

    def _on_status(self, text: str) -> None: ...

    def _on_header_field(self, text: str) -> None: ...

    def _on_header_value(self, text: str) -> None: ...


class HeadedAnswer(Answer):
    """An answer of which one header is also read. The parser hands over names and values in any number of pieces."""

    header: ClassVar[str]
    """Its name, in small letters."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._in_value = self._wanted = False

    def _on_message_begin(self) -> None:
        super()._on_message_begin()
        if not self.complete:
            self.said = ""  # what an interim answer says is not of the real one

    def _on_header_field(self, text: str) -> None:
        if self._in_value:
            self._name, self._in_value = "", False
        if len(self._name) <= len(self.header):  # a name without an end does not grow here
            self._name += text

    def _on_header_value(self, text: str) -> None:
        if not self._in_value:
            self._in_value, self._wanted = True, self._name.lower() == self.header and not self.complete
            if self._wanted and self.said:
                self.said += ", "  # a header that comes twice is one list
        if self._wanted and len(self.said) <= _SAID_MAX:
            self.said += text


class SignedAnswer(HeadedAnswer):
    """An answer of which it is also read which server process gave it."""

    header = SERVER_HEADER


class TimedAnswer(HeadedAnswer):
    """An answer of which it is also read where the server's time went."""

    header = TIMING_HEADER
