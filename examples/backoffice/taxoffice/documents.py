"""The documents of a tax payer: always the same ones for the same user."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from hashlib import blake2b

DOCUMENTS_PER_USER = 47
DOCUMENTS_PER_PAGE = 10
PAGES_PER_USER = -(-DOCUMENTS_PER_USER // DOCUMENTS_PER_PAGE)

_NEWEST = date(2025, 11, 7)
_ISSUERS = (
    "Comercial Andes SpA",
    "Transportes Biobío Ltda.",
    "Panadería La Espiga EIRL",
    "Ferretería O'Higgins & Hijos",
    "Servicios Ñuble S.A.",
    "Imprenta Valparaíso Ltda.",
    "Agrícola Los Robles SpA",
    "Librería Mistral EIRL",
)


@dataclass(frozen=True, slots=True)
class Document:
    """One tax document: `date` as YYYY-MM-DD, `amount` in whole pesos."""

    folio: int
    issuer: str
    date: str
    amount: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a user's table, numbered from 1; a page beyond the last has no documents."""

    page: int
    pages: int
    documents: tuple[Document, ...]

    def as_dict(self) -> dict[str, object]:
        """Give the page as the JSON endpoint sends it."""
        return {
            "page": self.page,
            "pages": self.pages,
            "documents": [asdict(document) for document in self.documents],
        }


def list_documents(user: str) -> tuple[Document, ...]:
    """List all documents of `user`, newest first."""
    return tuple(_make_documents(user))


def list_page(user: str, page: int) -> Page:
    """List page `page` (from 1) of the documents of `user`."""
    start = (page - 1) * DOCUMENTS_PER_PAGE
    documents = list_documents(user)[start : start + DOCUMENTS_PER_PAGE]
    return Page(page, PAGES_PER_USER, documents)


def _make_documents(user: str) -> Iterator[Document]:
    folio = 1_000_000 + _draw(user, "folio") % 8_000_000
    day = _NEWEST
    for index in range(DOCUMENTS_PER_USER):
        drawn = _draw(user, str(index))
        yield Document(
            folio=folio - index,
            issuer=_ISSUERS[drawn % len(_ISSUERS)],
            date=day.isoformat(),
            amount=990 + (drawn // 8) % 4_000_000,
        )
        day -= timedelta(days=drawn // 1000 % 4)


def _draw(*parts: str) -> int:
    """Draw a number that only `parts` decide (a hash: the same in every process and Python)."""
    return int.from_bytes(blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")
