//! Analysis to HTML, Markdown, JSON.
