//! Namespaces, echo servers, browsers and oracles for the tests.
