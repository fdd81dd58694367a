"""What a document moves in the ledger. What was used is there already, posted as it was used: an invoice adds its tax,
and a credit note gives back what was used and its tax.

The rounding to what can be paid moves nothing: it is carried from document to document and never grows.
"""

from __future__ import annotations

from gpuyard.billing.invoices import Document, DocumentKind
from gpuyard.model.ledger import AccountKind, Transfer, TransferKind, account, move


def postings(document: Document) -> list[Transfer]:
    """The transfers of a document. Their ids follow from its number: posted twice, they count once."""
    tenant_id, currency = document.tenant_id, document.currency
    wallet = account(AccountKind.WALLET, tenant_id, currency)
    tax = account(AccountKind.TAX, "yard", currency)
    given_back = account(AccountKind.CREDITS, tenant_id, currency)
    found: list[Transfer] = []

    def add(kind: TransferKind, accounts: tuple[str, str], amount_nano: int) -> None:
        if amount_nano:
            number = f"{document.number}:{kind.value}"
            at_us = document.issued_us
            found.append(move(number, at_us, kind, accounts, amount_nano, currency, tenant_id, document.number))

    add(TransferKind.TAX, (wallet, tax), document.tax_nano)
    if document.kind is DocumentKind.CREDIT_NOTE:
        add(TransferKind.CREDIT, (given_back, wallet), -document.subtotal_nano)
    return found
