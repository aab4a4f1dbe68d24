#include "textflag.h"

// func prefetchHeaders(sets *set, mask uint64, hashes []uint64)
TEXT ·prefetchHeaders(SB), NOSPLIT, $0-40
	MOVD sets+0(FP), R0
	MOVD mask+8(FP), R1
	MOVD hashes_base+16(FP), R2
	MOVD hashes_len+24(FP), R3
	CBZ  R3, done

next:
	MOVD.P 8(R2), R4
	AND    R1, R4
	ADD    R4<<3, R4
	ADD    R4<<6, R0, R4
	PRFM   (R4), PLDL1KEEP
	SUB    $1, R3
	CBNZ   R3, next

done:
	RET

// func prefetchEntries(sets *set, places []uint32)
TEXT ·prefetchEntries(SB), NOSPLIT, $0-32
	MOVD sets+0(FP), R0
	MOVD places_base+8(FP), R2
	MOVD places_len+16(FP), R3
	CBZ  R3, done

next:
	MOVWU.P 4(R2), R4
	ADD     R4>>3, R4             // lines before the place, but for the header of its set
	ADD     R4<<6, R0, R4
	PRFM    64(R4), PLDL1KEEP
	SUB     $1, R3
	CBNZ    R3, next

done:
	RET
