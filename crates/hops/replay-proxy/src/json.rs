//! JSON as values: one text for all that mean the same, pointers, and replacing.

use serde_json::Value;

/// Writes a value so that equal values have equal texts: names sorted, numbers by value.
pub(crate) fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => {
            let mut names: Vec<&String> = object.keys().collect();
            names.sort_unstable();
            text.push('{');
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                canonical(&object[name], text);
            }
            text.push('}');
        }
        Value::Array(array) => {
            text.push('[');
            for (index, item) in array.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        Value::Number(number) => match number.as_f64() {
            // 1, 1.0 and 1e0 are one number. Integers beyond 2^53 are kept apart.
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
                text.push_str(&format!("{float:.0}"));
            }
            _ => text.push_str(&number.to_string()),
        },
        other => text.push_str(&other.to_string()),
    }
}

/// Calls `change` for each value that a pointer leads to. `*` leads to all of a level.
pub(crate) fn each(value: &mut Value, pointer: &str, change: &mut impl FnMut(&mut Value)) {
    let Some(rest) = pointer.strip_prefix('/') else {
        return change(value);
    };
    let (step, rest) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    match value {
        Value::Object(object) if step == "*" => {
            object
                .values_mut()
                .for_each(|value| each(value, rest, change));
        }
        Value::Array(array) if step == "*" => {
            array.iter_mut().for_each(|value| each(value, rest, change));
        }
        Value::Object(object) => {
            let name = step.replace("~1", "/").replace("~0", "~");
            if let Some(value) = object.get_mut(&name) {
                each(value, rest, change);
            }
        }
        Value::Array(array) => {
            let index = step.parse::<usize>().ok();
            if let Some(value) = index.and_then(|index| array.get_mut(index)) {
                each(value, rest, change);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        let mut text = String::new();
        canonical(&serde_json::from_str(json).expect("JSON"), &mut text);
        text
    }

    #[test]
    fn equal_values_have_equal_texts() {
        assert_eq!(
            text(r#"{"b": 1.0, "a": [1, {"d":2,"c":3}]}"#),
            text(r#"{"a":[1e0,{"c":3,"d":2}],"b":1}"#)
        );
        assert_ne!(text("[1,2]"), text("[2,1]"));
        assert_ne!(text("9007199254740993"), text("9007199254740992"));
        assert_ne!(text("\"1\""), text("1"));
    }

    #[test]
    fn pointers_lead_to_values() {
        let mut value = serde_json::json!({"a": [{"b/c": 1}, {"b/c": 2}], "d": null});
        let mut found = Vec::new();
        each(&mut value, "/a/*/b~1c", &mut |value| {
            found.push(value.clone())
        });
        each(&mut value, "/a/1/b~1c", &mut |value| {
            found.push(value.clone())
        });
        each(&mut value, "/a/x/y", &mut |value| found.push(value.clone()));
        assert_eq!(found, [1, 2, 2]);
    }
}
