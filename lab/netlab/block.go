package netlab

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// Results of a program of traffic control, linux/pkt_cls.h.
const (
	tcNext = -1 // TCX_NEXT
	tcShot = 2  // TC_ACT_SHOT
)

// blocked loads the program that drops UDP and TCP packets, over IPv4 and IPv6,
// from or to a port. It reads where a packet without VLAN tag and IP options
// has its ports; others pass, and so do fragments but the first.
func blocked(port uint16) (*ebpf.Program, error) {
	const (
		etherType        = 12
		protocol4, frag4 = 14 + 9, 14 + 6
		ports4           = 14 + 20
		protocol6        = 14 + 6
		ports6           = 14 + 40
	)
	transport := func(ports int32) asm.Instructions {
		return asm.Instructions{
			asm.JEq.Imm(asm.R0, 6, fmt.Sprintf("ports%d", ports)),
			asm.JNE.Imm(asm.R0, 17, "pass"),
			asm.LoadAbs(ports, asm.Half).WithSymbol(fmt.Sprintf("ports%d", ports)),
			asm.JEq.Imm(asm.R0, int32(port), "drop"),
			asm.LoadAbs(ports+2, asm.Half),
			asm.JEq.Imm(asm.R0, int32(port), "drop"),
			asm.Ja.Label("pass"),
		}
	}
	program := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), // what LoadAbs reads from
		asm.LoadAbs(etherType, asm.Half),
		asm.JEq.Imm(asm.R0, 0x86dd, "six"),
		asm.JNE.Imm(asm.R0, 0x0800, "pass"),
		asm.LoadAbs(frag4, asm.Half),
		asm.JSet.Imm(asm.R0, 0x1fff, "pass"),
		asm.LoadAbs(protocol4, asm.Byte),
	}
	program = append(program, transport(ports4)...)
	program = append(program, asm.LoadAbs(protocol6, asm.Byte).WithSymbol("six"))
	program = append(program, transport(ports6)...)
	program = append(program,
		asm.Mov.Imm(asm.R0, tcNext).WithSymbol("pass"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcShot).WithSymbol("drop"),
		asm.Return(),
	)
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: program})
}

// Block has the switch lose all UDP and TCP packets from or to a port, in both
// directions, on the cable to a host's interface, until unblock is called:
// whoever is at both ends of what is lost hears nothing of it, and everything
// else passes. It needs Linux 6.6.
func (s *Switch) Block(h *Host, name string, port uint16) (unblock func() error, err error) {
	at, err := s.Port(h, name)
	if err != nil {
		return nil, err
	}
	operation := fmt.Sprintf("block port %d on the cable to %s", port, name)
	program, err := blocked(port)
	if err != nil {
		return nil, h.wrap(operation, err)
	}
	defer program.Close()
	var links []link.Link
	unblock = func() error {
		var errs []error
		for _, l := range links {
			errs = append(errs, l.Close())
		}
		links = nil
		return h.wrap("un"+operation, errors.Join(errs...))
	}
	err = s.ns.do(func() error {
		for _, direction := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			l, err := link.AttachTCX(link.TCXOptions{Interface: at.Index, Program: program, Attach: direction})
			if err != nil {
				return err
			}
			links = append(links, l)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(h.wrap(operation, err), unblock())
	}
	return unblock, nil
}
