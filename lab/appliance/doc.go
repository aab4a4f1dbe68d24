// Package appliance is what the appliance image is made of, and the test of it.
//
// The problem it solves: a box that boots, forwards, takes updates and comes back by
// itself is made of a boot loader, an initramfs, a dozen units and a kernel, and no part
// of it shows by itself that the whole does. So the test boots the image as it is
// shipped in a machine that QEMU emulates, with the lab's network around it, and does to
// it what happens to appliances: mistakes, power cuts, updates that are broken.
//
// What is in which folder: image has files as they are in the root file system, build
// what makes a disk of it (run by scripts/appliance), weir-appliance, seed and slot the
// program that the image has beside weir, examples how hypervisors run it.
package appliance
