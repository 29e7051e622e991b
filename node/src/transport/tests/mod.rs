mod support;

mod calls;
