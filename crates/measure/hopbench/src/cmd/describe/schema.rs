//! The fields of a file, from its JSON Schema.

use schemars::Schema;
use serde_json::{Map, Value};

use super::columns;

/// Lists all fields: those of the file first, then those of its tables.
pub(super) fn text(schema: &Schema) -> String {
    let root = schema.as_value();
    let mut out = String::new();
    let mut tables = vec![(String::new(), root)];
    let mut next = 0;
    while let Some((name, table)) = tables.get(next).cloned() {
        next += 1;
        let required: Vec<&str> = list(&table["required"]);
        let mut rows = Vec::new();
        for (field, of_field) in object(&table["properties"]) {
            let (kind, inner) = kind(root, of_field);
            let default = match (required.contains(&field.as_str()), of_field.get("default")) {
                (true, _) => "required".to_owned(),
                (false, Some(Value::Null) | None) => String::new(),
                (false, Some(default)) => format!("default {default}"),
            };
            let help = of_field["description"].as_str().unwrap_or_default();
            rows.push(vec![
                format!("  {field}"),
                kind.clone(),
                default,
                help.replace('\n', " "),
            ]);
            if let Some(inner) = inner {
                let full = match name.is_empty() {
                    true => field.clone(),
                    false => format!("{name}.{field}"),
                };
                let is_known = tables.iter().any(|(_, known)| std::ptr::eq(*known, inner));
                if !is_known {
                    tables.push((full, inner));
                }
            }
        }
        if !name.is_empty() {
            out += &format!("\n{name}\n\n");
        }
        out += &columns(&rows);
    }
    out
}

/// Names the type of a field; also returns the table that it is, or that its items are.
fn kind<'s>(root: &'s Value, field: &'s Value) -> (String, Option<&'s Value>) {
    let field = resolved(root, field);
    let choices = field.get("anyOf").or_else(|| field.get("oneOf"));
    if let Some(choices) = choices.and_then(Value::as_array) {
        let names = choices.iter().filter_map(|it| it["const"].as_str());
        let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
        if !names.is_empty() {
            return (names.join(" or "), None);
        }
        let mut kinds = Vec::new();
        let mut table = None;
        for choice in choices.iter().filter(|choice| choice["type"] != "null") {
            let (name, inner) = kind(root, choice);
            kinds.push(name);
            table = table.or(inner);
        }
        return (kinds.join(" or "), table);
    }
    if let Some(names) = field["enum"].as_array() {
        let names: Vec<String> = names.iter().map(Value::to_string).collect();
        return (names.join(" or "), None);
    }
    let types: Vec<&str> = match &field["type"] {
        Value::String(one) => vec![one],
        all => list(all),
    };
    match types.iter().find(|name| **name != "null") {
        Some(&"array") => {
            let (items, table) = kind(root, &field["items"]);
            let are_plain = ["number", "table", "text"]
                .iter()
                .any(|it| items.ends_with(it));
            let plural = if are_plain { "s" } else { "" };
            (format!("list of {items}{plural}"), table)
        }
        Some(&"object") if field.get("properties").is_some() => ("table".to_owned(), Some(field)),
        Some(&"object") => {
            let (values, table) = kind(root, &field["additionalProperties"]);
            (format!("table of {values}"), table)
        }
        Some(&"integer") => ("whole number".to_owned(), None),
        Some(&"number") => ("number".to_owned(), None),
        Some(&"boolean") => ("true or false".to_owned(), None),
        Some(_) => ("text".to_owned(), None),
        None => ("anything".to_owned(), None),
    }
}

fn resolved<'s>(root: &'s Value, field: &'s Value) -> &'s Value {
    let reference = field["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
    reference.and_then(|it| root.pointer(it)).unwrap_or(field)
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> Vec<&str> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).collect()
}
