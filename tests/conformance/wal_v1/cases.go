package main

// test is one thing that existing clients rely on. Where our server differs from existing ones on purpose, the name says
// "ours" and the comment in the body says how theirs behave.
type test struct {
	name string
	body func(*world)
}

var cases = append(putCases, callCases...)
