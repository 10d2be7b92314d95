//! Pure: mappings to the ruleset they ask for, and the difference of two rulesets.
