from __future__ import annotations

from dataclasses import replace

from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from broker.kafka.acls import bindings, exact, rule_of
from broker.routing import AclRule, connector_rights
from schemas.names import Kommunenummer


def test_rules_become_bindings_and_come_back() -> None:
    rules = connector_rights("c", "acme", Kommunenummer("0301"))
    single = {replace(rule, operations=(operation,)) for rule in rules for operation in rule.operations}
    assert {rule_of(binding) for binding in bindings(rules)} == single
    assert len(bindings(rules)) == 6


def test_every_binding_is_literal_and_allows() -> None:
    for binding in bindings([AclRule("c", "topic", "t", ("READ", "WRITE"))]):
        assert binding.resource_pattern_type == ResourcePatternType.LITERAL
        assert binding.permission_type == AclPermissionType.ALLOW
        assert binding.principal == "User:c"


def test_a_filter_names_one_binding_in_full() -> None:
    (binding,) = bindings([AclRule("c", "group", "g", ("READ",))])
    found = exact(binding)
    assert (found.restype, found.name, found.principal) == (ResourceType.GROUP, "g", "User:c")
    assert found.operation == AclOperation.READ


def test_a_binding_that_we_never_make_is_no_rule() -> None:
    (ours,) = bindings([AclRule("c", "topic", "t", ("READ",))])
    for operation, permission in (
        (AclOperation.ALTER, AclPermissionType.ALLOW),
        (AclOperation.READ, AclPermissionType.DENY),
    ):
        theirs = AclBinding(
            ours.restype, ours.name, ours.resource_pattern_type, ours.principal, ours.host, operation, permission
        )
        assert rule_of(theirs) is None
