"""Every way in which gpuyard refuses, as a stable code.

A code is a promise: scripts branch on it, so it is never renamed. The sentence that a person reads lives in
`gpuyard.texts`, in each language, under the same code.
"""

from __future__ import annotations

from typing import Final

# code -> HTTP status. The CLI's exit code follows from the status (see `exit_code`).
STATUS_BY_CODE: Final[dict[str, int]] = {
    # the request itself
    "invalid_request": 400,
    "invalid_size": 400,
    "invalid_share": 400,
    "invalid_price": 400,
    "invalid_duration": 400,
    "invalid_weight": 400,
    "invalid_time": 400,
    "invalid_name": 400,
    "invalid_cursor": 400,
    "invalid_path": 400,
    "unknown_offer": 422,
    "unknown_card_model": 422,
    "unknown_image": 422,
    "slice_too_large": 422,
    "too_many_slices": 422,
    "slice_refused": 422,
    "native_unavailable": 422,
    "mps_one_card": 422,
    "mig_one_slice": 422,
    "mig_too_large": 422,
    "mig_not_there": 422,
    "mig_no_containers": 422,
    "mig_place_taken": 503,
    "mig_unavailable": 503,
    "exclusive_fraction": 422,
    "sharing_unavailable": 422,
    "mps_unavailable": 503,
    "kernel_unavailable": 503,
    "shared_file_broken": 500,
    "limit_too_large": 422,
    "priority_too_high": 422,
    "goal_unreachable": 422,
    "no_card_of_model": 422,
    "no_price": 422,
    "runtime_unavailable": 422,
    "mount_refused": 422,
    "nothing_to_verify": 409,
    "verify_failed": 502,
    "idempotency_mismatch": 422,
    "request_too_large": 413,
    "method_not_allowed": 405,
    # who asks
    "unauthenticated": 401,
    "forbidden": 403,
    "login_refused": 401,
    "oidc_off": 404,
    "oidc_failed": 401,
    "no_role_for_groups": 403,
    "tenant_to_choose": 409,
    "password_refused": 422,
    "user_not_found": 404,
    "insufficient_credit": 402,
    # access
    "invalid_policy": 422,
    "denied_by_policy": 403,
    "policy_not_found": 404,
    "policy_in_use": 409,
    "quota_exceeded": 409,
    "outside_geography": 403,
    "outside_residency": 403,
    "too_many_requests": 429,
    "audit_broken": 409,
    "audit_unreadable": 400,
    "evidence_refused": 422,
    "attestation_off": 409,
    "attestation_policy_invalid": 422,
    "nonce_refused": 409,
    "attestation_key_invalid": 400,
    # encrypted volumes
    "encryption_unavailable": 422,
    "volume_not_found": 404,
    "volume_not_encrypted": 409,
    "volume_exists": 409,
    "volume_in_use": 409,
    "volume_busy": 409,
    "volume_locked": 409,
    "volume_key_refused": 403,
    "volume_failed": 502,
    "evidence_unreadable": 400,
    # machines
    "machines_off": 409,
    "machine_not_found": 404,
    "invitation_not_found": 404,
    "join_token_invalid": 400,
    "join_refused": 403,
    "join_not_trusted": 502,
    "join_in_clear": 422,
    "machine_request_refused": 422,
    "machine_refused": 403,
    "card_of_another": 409,
    "machine_not_joined": 409,
    "machine_already_joined": 409,
    "machine_state_unusable": 507,
    "machine_running": 409,
    "clock_differs": 409,
    # what it is about
    "not_found": 404,
    "workload_not_found": 404,
    "tenant_not_found": 404,
    "token_not_found": 404,
    "access_key_not_found": 404,
    "key_pair_not_found": 404,
    "invalid_public_key": 400,
    "file_not_found": 404,
    "name_taken": 409,
    "wrong_state": 409,
    "not_running": 409,
    "port_not_declared": 409,
    "no_capacity": 409,
    # the yard
    "storage_full": 507,
    "store_unavailable": 503,
    "shutting_down": 503,
    "internal": 500,
    # starting a yard
    "state_dir_in_use": 409,
    "state_dir_newer": 409,
    "state_dir_unusable": 409,
    "database_in_use": 409,
    "database_url_invalid": 400,
    "extra_missing": 422,
    "port_in_use": 409,
    "not_loopback": 422,
    "tls_unusable": 422,
    # what the yard fetches
    "fetch_refused": 422,
    "fetch_failed": 502,
    "no_cards_found": 422,
    "fleet_spec_invalid": 400,
    "fleet_file_invalid": 400,
    "price_book_invalid": 400,
    "catalog_invalid": 400,
    "topology_invalid": 400,
    "yard_not_running": 409,
    # a simulation
    "trace_invalid": 400,
    "unknown_policy": 422,
    # the client
    "unreachable": 503,
    "yard_not_trusted": 502,
    "no_credentials": 401,
    "timed_out": 504,
    "workload_failed": 409,
    "engine_failed": 502,
    # prices and invoices
    "price_not_yet": 422,
    "no_reservation": 422,
    "invalid_pattern": 400,
    "usage_conflict": 409,
    "usage_invalid": 422,
    "currency_mismatch": 409,
    "tax_table_invalid": 400,
    "period_open": 409,
    "nothing_to_invoice": 409,
    "invoice_not_found": 404,
    "not_creditable": 409,
    "not_genuine": 409,
    "bids_invalid": 422,
    "bid_refused": 422,
    "cpu_only_refused": 422,
    "cpu_only_switch": 409,
    "font_missing": 422,
    "file_unusable": 422,
    # incidents
    "incident_not_found": 404,
    "incident_target_unknown": 404,
    "incident_open": 409,
    "incident_closed": 409,
    "incident_time": 422,
    # wallets
    "payment_conflict": 409,
    "payment_unverified": 401,
    "payment_refused": 422,
    "payments_off": 422,
    "voucher_invalid": 404,
    "voucher_used": 409,
    "voucher_expired": 409,
    "budget_exhausted": 402,
    "not_refundable": 409,
    "transfer_not_found": 404,
}

_EXIT_BY_STATUS: Final[dict[int, int]] = {
    400: 2,
    401: 3,
    402: 4,
    403: 3,
    404: 5,
    405: 2,
    409: 6,
    413: 2,
    422: 2,
    429: 7,
    502: 8,
    503: 7,
    504: 9,
    507: 8,
}


class YardError(Exception):
    """One refusal: a stable `code` and the facts (`params`) that its sentence names.

    The sentence is not here: `gpuyard.texts.error_text` renders it in the reader's language.
    """

    def __init__(self, code: str, /, **params: object) -> None:
        if code not in STATUS_BY_CODE:
            raise ValueError(f"undeclared error code {code!r}")
        self.code = code
        self.params: dict[str, object] = params
        super().__init__(code, params)

    @property
    def status(self) -> int:
        """The HTTP status this refusal answers with."""
        return STATUS_BY_CODE[self.code]

    @property
    def exit_code(self) -> int:
        """The exit code of the CLI for this refusal: 2 bad input, 3 not allowed, 4 no credit, 5 not found, 6 conflict,
        7 unreachable, 8 the yard or its engine failed, 9 timed out, 1 anything else."""
        return _EXIT_BY_STATUS.get(self.status, 1)
