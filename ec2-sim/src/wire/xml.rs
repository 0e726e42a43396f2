//! A writer for EC2's XML answers: elements with text, nested; nothing else occurs in them.

use std::fmt::{Display, Write as _};

/// An answer under construction.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    pub(super) fn document(root: &str, attributes: &str, content: impl FnOnce(&mut Self)) -> String {
        let mut xml = Self("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned());
        let _ = write!(xml.0, "<{root}{attributes}>");
        content(&mut xml);
        let _ = writeln!(xml.0, "</{root}>");
        xml.0
    }

    /// `<name>value</name>`.
    pub(super) fn text(&mut self, name: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "<{name}>");
        let start = self.0.len();
        let _ = write!(self.0, "{value}");
        if self.0[start..].contains(['&', '<', '>']) {
            let escaped = self.0[start..].replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            self.0.replace_range(start.., &escaped);
        }
        let _ = write!(self.0, "</{name}>");
    }

    pub(super) fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// `<name>…</name>`.
    pub(super) fn nested(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        let _ = write!(self.0, "<{name}>");
        content(self);
        let _ = write!(self.0, "</{name}>");
    }

    /// `<name><item>…</item>…</name>`; an empty list has no items.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.nested(name, |xml| {
            for item in items {
                xml.nested("item", |xml| each(xml, item));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_lists_have_items() {
        let answer = Xml::document("Root", " xmlns=\"x\"", |xml| {
            xml.text("note", "a < b & c");
            xml.list("set", [1, 2], |xml, number| xml.text("n", number));
        });
        assert_eq!(
            answer.lines().nth(1).unwrap(),
            "<Root xmlns=\"x\"><note>a &lt; b &amp; c</note><set><item><n>1</n></item><item><n>2</n></item></set></Root>"
        );
    }
}
