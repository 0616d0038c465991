"""Our rights as Kafka's bindings, and back. All are ALLOW, literal, and from any host."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from broker.routing import AclRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker import routing

_TYPES: Final[Mapping[routing.ResourceType, ResourceType]] = MappingProxyType(
    {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}
)
_OPERATIONS: Final[Mapping[routing.Operation, AclOperation]] = MappingProxyType(
    {"READ": AclOperation.READ, "WRITE": AclOperation.WRITE}
)
_TYPE_NAMES: Final[Mapping[ResourceType, routing.ResourceType]] = MappingProxyType(
    {value: name for name, value in _TYPES.items()}
)
_OPERATION_NAMES: Final[Mapping[AclOperation, routing.Operation]] = MappingProxyType(
    {value: name for name, value in _OPERATIONS.items()}
)

EVERYTHING: Final = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY
)


def bindings(rules: Iterable[AclRule]) -> set[AclBinding]:
    """Return one binding for each operation of each rule."""
    return {
        AclBinding(
            _TYPES[rule.resource_type],
            rule.name,
            ResourcePatternType.LITERAL,
            f"User:{rule.principal}",
            "*",
            _OPERATIONS[operation],
            AclPermissionType.ALLOW,
        )
        for rule in rules
        for operation in rule.operations
    }


def exact(binding: AclBinding) -> AclBindingFilter:
    """Return the filter that finds this binding and no other."""
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


def rule_of(binding: AclBinding) -> AclRule | None:
    """Return the binding as a rule with one operation, or None if it is of a kind that we never make."""
    kind, operation = _TYPE_NAMES.get(binding.restype), _OPERATION_NAMES.get(binding.operation)
    if kind is None or operation is None or binding.permission_type != AclPermissionType.ALLOW:
        return None
    return AclRule(binding.principal.removeprefix("User:"), kind, binding.name, (operation,))
