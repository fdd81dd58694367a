"""Pure access control: who, what, on what -> allow or deny, with the rule that decided."""
