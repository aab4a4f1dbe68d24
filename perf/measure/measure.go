// Package measure is what all measurements have in common: the rounds in which
// they are made, the processes that are measured, and the report of it all.
//
// The problem it solves: a claim about speed is worth what its measurement is, so
// what every measurement owes its reader is written once: random order, several
// rounds, the scheduler's account of a thread instead of the clock on the wall,
// medians with their spread, and where and of what commit it was made.
package measure
